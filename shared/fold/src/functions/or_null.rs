//! A scalar function or operator that is NULL for a value for which the original fails.
//!
//! In a query a failing row ends the query. In a fold it would end the stream, for ever at the same event; so the row's
//! value is NULL there, and a warning says so once.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, resources_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExpressionPlacement, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions;

use super::size;
use crate::exact::nearest;

/// The call of a function, total.
pub(crate) fn function(call: ScalarFunction) -> Expr {
    let original = match call.func.inner().downcast_ref::<OrNull>() {
        Some(OrNull { failing: Failing::IsNull, .. }) => return Expr::ScalarFunction(call),
        Some(OrNull { original: Original::Function(original), .. }) => Arc::clone(original),
        _ => call.func,
    };
    let total = OrNull::of(original, Failing::IsNull);
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(total)), call.args))
}

/// A function that fails, as the original does, and also where what a batch asks for is more than memory should hold.
pub(super) fn bounded(original: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(OrNull::of(original, Failing::Fails { most: size::MOST_TOGETHER }))
}

/// The call of a function that is [`bounded`], with another bound. None of any other.
pub(crate) fn bounded_by(call: &ScalarFunction, most: u64) -> Option<Expr> {
    let Some(OrNull { original: Original::Function(original), failing: Failing::Fails { .. }, .. }) =
        call.func.inner().downcast_ref::<OrNull>()
    else {
        return None;
    };
    let bounded = OrNull::of(Arc::clone(original), Failing::Fails { most });
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(bounded)), call.args.clone())))
}

/// An operator's expression, total.
pub(crate) fn operator(expr: BinaryExpr) -> Expr {
    of_operator(expr, Failing::IsNull)
}

/// An operator's expression, which fails where its result is beyond its type, or a batch of them beyond `most` bytes.
pub(crate) fn checked(expr: BinaryExpr, most: u64) -> Expr {
    of_operator(expr, Failing::Fails { most })
}

fn of_operator(BinaryExpr { left, op, right }: BinaryExpr, failing: Failing) -> Expr {
    let original = Original::Operator { op, name: op.to_string() };
    let signature = Signature::any(2, Volatility::Immutable);
    let total = OrNull { original, signature, failing, warned: AtomicBool::new(false) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(total)), vec![*left, *right]))
}

/// A cast, total also where `TRY_CAST` fails: for times that no calendar has, for what lies inside lists.
pub(crate) fn cast(expr: Expr, to: DataType) -> Expr {
    let original = Original::Cast { name: format!("cast to {to}"), to };
    let signature = Signature::any(1, Volatility::Immutable);
    let total = OrNull { original, signature, failing: Failing::IsNull, warned: AtomicBool::new(false) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(total)), vec![expr]))
}

#[derive(Debug)]
struct OrNull {
    original: Original,
    signature: Signature,
    failing: Failing,
    /// Whether a failure has been told of.
    warned: AtomicBool,
}

/// What a failing row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Failing {
    /// NULL: in views.
    IsNull,
    /// A failure: in queries. So is what asks for more than so many bytes or elements in a batch.
    Fails {
        /// The most.
        most: u64,
    },
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Original {
    Function(Arc<ScalarUDF>),
    Operator { op: Operator, name: String },
    Cast { to: DataType, name: String },
}

impl PartialEq for OrNull {
    fn eq(&self, other: &Self) -> bool {
        self.original == other.original && self.failing == other.failing
    }
}

impl Eq for OrNull {}

impl Hash for OrNull {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.original.hash(state);
        self.failing.hash(state);
    }
}

impl OrNull {
    fn of(original: Arc<ScalarUDF>, failing: Failing) -> Self {
        let signature = original.signature().clone();
        Self { original: Original::Function(original), signature, failing, warned: AtomicBool::new(false) }
    }

    /// What the original makes of these rows; a panic is a failure like others.
    fn attempt(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bound = match self.failing {
            Failing::IsNull => size::Bound::Each,
            Failing::Fails { most } => size::Bound::Together { rows: args.number_rows, most },
        };
        size::check(self.name(), &args.args, bound)?;
        without_panic(|| match &self.original {
            Original::Function(function) => function.invoke_with_args(args),
            Original::Operator { op, .. } => operate(args, |operands| match operands {
                [left, right] => {
                    let expr = expressions::BinaryExpr::new(Arc::clone(left), *op, Arc::clone(right));
                    Ok(Arc::new(expr.with_fail_on_overflow(true)))
                }
                _ => exec_err!("{op} takes two operands"),
            }),
            Original::Cast { to: DataType::Float64, .. } if args.args[0].data_type().is_decimal() => {
                let rows = args.number_rows;
                let array = args.args[0].clone().into_array(rows)?;
                Ok(ColumnarValue::Array(nearest::doubles(&array).expect("it is an array of decimals")))
            }
            Original::Cast { to, .. } => operate(args, |operands| match operands {
                [operand] => Ok(Arc::new(expressions::TryCastExpr::new(Arc::clone(operand), to.clone()))),
                _ => exec_err!("a cast takes one operand"),
            }),
        })
    }

    /// The rows one by one as far as needed: halves that succeed are taken whole.
    fn halves(&self, args: &ScalarFunctionArgs, from: usize, rows: usize) -> Result<Vec<ArrayRef>> {
        let part = slice(args, from, rows);
        let failure = match self.attempt(part) {
            Ok(value) => return Ok(vec![value.into_array(rows)?]),
            Err(failure) => failure,
        };
        if let DataFusionError::ResourcesExhausted(_) = failure.find_root() {
            return Err(failure);
        }
        if rows > 1 {
            let mut made = self.halves(args, from, rows / 2)?;
            made.extend(self.halves(args, from + rows / 2, rows - rows / 2)?);
            return Ok(made);
        }
        Ok(vec![self.null(args, 1, &failure)?])
    }

    /// So many rows that failed, of which the first is told.
    fn null(&self, args: &ScalarFunctionArgs, rows: usize, failure: &DataFusionError) -> Result<ArrayRef> {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let reason = failure.strip_backtrace();
            tracing::warn!(function = self.name(), %reason, "fails for an event's value, which is NULL then");
        }
        Ok(new_null_array(args.return_type(), rows))
    }
}

fn slice(args: &ScalarFunctionArgs, from: usize, rows: usize) -> ScalarFunctionArgs {
    let cut = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
        ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar.clone()),
    };
    ScalarFunctionArgs { args: args.args.iter().map(cut).collect(), number_rows: rows, ..args.clone() }
}

/// Evaluates the expression that is made of the arguments, as DataFusion does.
fn operate(
    args: ScalarFunctionArgs,
    made: impl FnOnce(&[Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn PhysicalExpr>>,
) -> Result<ColumnarValue> {
    let (mut fields, mut columns, mut operands) = (vec![], vec![], vec![]);
    for (place, value) in args.args.into_iter().enumerate() {
        let operand: Arc<dyn PhysicalExpr> = match value {
            ColumnarValue::Scalar(scalar) => expressions::lit(scalar),
            ColumnarValue::Array(array) => {
                fields.push(Field::new(format!("c{place}"), array.data_type().clone(), true));
                columns.push(array);
                Arc::new(expressions::Column::new(&format!("c{place}"), columns.len() - 1))
            }
        };
        operands.push(operand);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    made(&operands)?.evaluate(&batch)
}

thread_local! {
    /// Whether a panic on this thread is expected, and no news.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `run` makes; its panic is a failure, of which the panic hook says nothing.
fn without_panic(run: impl FnOnce() -> Result<ColumnarValue>) -> Result<ColumnarValue> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let made = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    made.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        exec_err!("{}", text.unwrap_or_else(|| "it panicked".to_string()))
    })
}

impl ScalarUDFImpl for OrNull {
    fn name(&self) -> &str {
        match &self.original {
            Original::Function(function) => function.name(),
            Original::Operator { name, .. } | Original::Cast { name, .. } => name,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (&self.original, types) {
            (Original::Function(function), types) => function.return_type(types),
            (Original::Operator { op, .. }, [left, right]) => BinaryTypeCoercer::new(left, op, right).get_result_type(),
            (Original::Operator { op, .. }, _) => exec_err!("{op} takes two operands"),
            (Original::Cast { to, .. }, _) => Ok(to.clone()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match &self.original {
            Original::Function(function) => {
                let field = function.return_field_from_args(args)?;
                Ok(if field.is_nullable() { field } else { Arc::new(field.as_ref().clone().with_nullable(true)) })
            }
            Original::Operator { name, .. } | Original::Cast { name, .. } => {
                let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
                Ok(Arc::new(Field::new(name, self.return_type(&types)?, true)))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.attempt(args.clone()), self.failing) {
            (Ok(value), _) => return Ok(value),
            (Err(failure), Failing::Fails { .. }) => return Err(failure),
            (Err(_), Failing::IsNull) => {}
        }
        if args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_))) {
            let made = self.halves(&args, 0, 1)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made[0], 0)?));
        }
        let parts = self.halves(&args, 0, args.number_rows)?;
        let parts: Vec<_> = parts.iter().map(|part| &**part).collect();
        // Together they may be more than an array holds; what an event's value is does not depend on the events beside it.
        match concat(&parts) {
            Ok(whole) => Ok(ColumnarValue::Array(whole)),
            Err(failure) => resources_err!("{} makes too much {}: {failure}", self.name(), size::IN_ONE_BATCH),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match (&self.original, args) {
            (Original::Operator { name, .. }, [left, right]) => {
                Ok(format!("{} {name} {}", left.schema_name(), right.schema_name()))
            }
            (Original::Operator { name, .. } | Original::Cast { name, .. }, _) => Ok(name.clone()),
            (Original::Function(function), args) => function.schema_name(args),
        }
    }

    fn aliases(&self) -> &[String] {
        match &self.original {
            Original::Function(function) => function.aliases(),
            Original::Operator { .. } | Original::Cast { .. } => &[],
        }
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let Original::Function(function) = &self.original else { return None };
        let updated = Arc::new(function.inner().with_updated_config(config)?);
        let signature = updated.signature().clone();
        let warned = AtomicBool::new(self.warned.load(Ordering::Relaxed));
        Some(ScalarUDF::from(OrNull {
            original: Original::Function(updated),
            signature,
            failing: self.failing,
            warned,
        }))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match &self.original {
            Original::Function(function) => function.coerce_types(types),
            Original::Operator { .. } | Original::Cast { .. } => Ok(types.to_vec()),
        }
    }

    fn preimage(&self, args: &[Expr], value: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        match &self.original {
            Original::Function(function) => function.preimage(args, value, info),
            Original::Operator { .. } | Original::Cast { .. } => Ok(PreimageResult::None),
        }
    }

    fn short_circuits(&self) -> bool {
        matches!(&self.original, Original::Function(function) if function.short_circuits())
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        match &self.original {
            Original::Function(function) => function.conditional_arguments(args),
            Original::Operator { .. } | Original::Cast { .. } => None,
        }
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        match &self.original {
            Original::Function(function) => function.evaluate_bounds(inputs),
            Original::Operator { .. } | Original::Cast { .. } => Interval::make_unbounded(&DataType::Null),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // NULL for a failing value breaks every order but that of functions of one value, such as a constant's.
        let all_constant = inputs.iter().all(|input| input.sort_properties == SortProperties::Singleton);
        Ok(if all_constant { SortProperties::Singleton } else { SortProperties::Unordered })
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        match &self.original {
            Original::Function(function) => function.placement(args),
            Original::Operator { .. } | Original::Cast { .. } => ExpressionPlacement::KeepInPlace,
        }
    }
}
