//! One aggregate call, made ready to merge: refused if it cannot, widened where it could wrap, ordered where order
//! decides its result.

use arrow::datatypes::DataType;
use bifold_ledger::Dialect;
use datafusion::common::Column;
use datafusion::common::DFSchema;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Expr, ExprSchemable, SortExpr, cast};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::functions::{Order, order_of, state_id};

/// A call that merges.
pub(super) struct Call {
    /// What is folded.
    pub(super) expr: Expr,
    /// The call as an ordinary query would make it, but with its order made unique; under the original's name.
    pub(super) plain: Expr,
    /// The type that its value has to become at finish, where `expr`'s is wider.
    pub(super) guard: Option<DataType>,
    /// The id of its state.
    pub(super) state_id: String,
}

/// Why a call cannot stand in a view.
pub(super) struct Refused {
    /// The function's names, to point at.
    pub(super) names: Vec<String>,
    pub(super) message: String,
    pub(super) hint: String,
}

/// The decimal that 64-bit integers fit.
const INTEGER: DataType = DataType::Decimal128(20, 0);
/// The widest decimal whose sums of 10^10 values fit 128 bits.
const SAFE_PRECISION: u8 = 28;

/// Makes `expr`, an aggregate call over `input` with the value type `ty`, ready to merge.
pub(super) fn prepare(dialect: Dialect, expr: &Expr, input: &DFSchema, ty: &DataType) -> Result<Call, Refused> {
    let call = unalias(expr)?;
    let mut params = call.params.clone();
    let function = call.func.name().to_string();
    let names: Vec<String> = std::iter::once(&function).chain(call.func.aliases()).cloned().collect();
    let refuse = |message: String, hint: &str| Refused { names: names.clone(), message, hint: hint.to_string() };
    let Some(order) = order_of(&function) else {
        let message = format!("{function}() cannot be merged");
        let hint = match function.as_str() {
            // What the planner makes of array_agg(…)[2], too.
            "nth_value" => "take the place from a list: array_element(array_agg(x ORDER BY time), 2)",
            _ => "use an aggregate whose partial results merge, such as count, sum, avg, min or max",
        };
        return Err(refuse(message, hint));
    };
    if params.distinct && ignores_distinct(&function) {
        let message = format!("{function}() does not tell distinct values from others");
        return Err(refuse(message, "leave DISTINCT out, or group by the columns in a view of its own"));
    }
    if order == Order::Needed && params.order_by.is_empty() {
        let message = format!("{function}() depends on the order of events");
        return Err(refuse(message, "add ORDER BY inside the call, for example by the event-time column"));
    }
    let ordered = order == Order::Needed;
    if ordered && !params.distinct {
        let Some(log_order) = log_order(input) else {
            let message = format!("{function}() over unnested values has no order that every merge keeps");
            return Err(refuse(message, "use an aggregate to which order does not matter, or DISTINCT"));
        };
        params.order_by.extend(log_order);
    }
    without_repeats(&mut params.order_by);
    let plain = Expr::AggregateFunction(AggregateFunction { func: call.func.clone(), params: params.clone() });
    let plain = plain.alias(expr.schema_name().to_string());
    if matches!(function.as_str(), "sum" | "avg") && params.args.iter().any(|arg| is_span(arg, input)) {
        let message = format!("{function}() of a span of time can overflow unseen");
        return Err(refuse(message, "take its seconds first: date_part('epoch', b) - date_part('epoch', a)"));
    }
    let guard = widen(&function, &mut params, input, ty).map_err(|e| refuse(e.to_string(), "check the argument"))?;
    let arguments = params.args.iter().map(|arg| arg.get_type(input)).collect::<Result<Vec<_>, _>>();
    let arguments = arguments.map_err(|e| refuse(e.to_string(), "check the arguments"))?;
    let state_id = state_id(dialect, &function, params.distinct, ordered, &arguments);
    let func = if guard.is_some() && function == "sum" { sum_udaf() } else { call.func.clone() };
    let expr = Expr::AggregateFunction(AggregateFunction { func, params });
    Ok(Call { expr, plain, guard, state_id })
}

/// Functions whose accumulators never look at DISTINCT.
fn ignores_distinct(function: &str) -> bool {
    ["corr", "covar_", "regr_", "approx_percentile", "approx_median"].iter().any(|name| function.starts_with(name))
}

fn unalias(expr: &Expr) -> Result<&AggregateFunction, Refused> {
    match expr {
        Expr::Alias(alias) => unalias(&alias.expr),
        Expr::AggregateFunction(call) => Ok(call),
        other => Err(Refused {
            names: vec![],
            message: format!("{other} is no aggregate call"),
            hint: "write an aggregate function".to_string(),
        }),
    }
}

/// Refuses what DataFusion plans but cannot run, such as stddev(DISTINCT x): here, not at the first event.
pub(super) fn try_out(call: &AggregateFunctionExpr) -> Result<(), Refused> {
    let tried = match call.groups_accumulator_supported() {
        true => call.create_groups_accumulator().map(drop),
        false => call.create_accumulator().map(drop),
    };
    tried.map_err(|e| Refused {
        names: std::iter::once(call.fun().name())
            .chain(call.fun().aliases().iter().map(|a| &**a))
            .map(String::from)
            .collect(),
        message: format!("{} cannot be folded: {}", call.name(), e.find_root().message()),
        hint: "write the call in another way".to_string(),
    })
}

/// The event's place in the log, if `input` has it: it makes every order unique, so that ties fall alike however states
/// merge.
fn log_order(input: &DFSchema) -> Option<Vec<SortExpr>> {
    let columns = ["_topic", "_partition", "_offset", "_index"].into_iter();
    let places = columns.map(|name| input.qualified_field_with_unqualified_name(name).ok());
    places.map(|place| place.map(|place| Expr::Column(Column::from(place)).sort(true, false))).collect()
}

/// Whether `expr` is a difference between times: its sums wrap silently, and no wider type could hold them.
fn is_span(expr: &Expr, input: &DFSchema) -> bool {
    matches!(expr.get_type(input), Ok(DataType::Duration(_) | DataType::Interval(_)))
}

/// Drops what an order has named before: DataFusion's states would have columns that their schema has not.
fn without_repeats(order: &mut Vec<SortExpr>) {
    let mut seen: Vec<Expr> = vec![];
    order.retain(|sort| {
        let expr = match &sort.expr {
            Expr::Column(column) => Expr::Column(Column::from_name(&column.name)),
            other => other.clone(),
        };
        let new = !seen.contains(&expr);
        seen.push(expr);
        new
    });
}

/// Lets sums accumulate where they cannot wrap: DataFusion's wrap silently. The value is judged at finish.
fn widen(
    function: &str,
    params: &mut AggregateFunctionParams,
    input: &DFSchema,
    ty: &DataType,
) -> datafusion::common::Result<Option<DataType>> {
    let [argument] = &params.args[..] else { return Ok(None) };
    let wider = match (function, argument.get_type(input)?) {
        ("sum", t) if t.is_integer() => INTEGER,
        ("sum" | "avg", DataType::Decimal128(precision, scale)) if precision > SAFE_PRECISION => {
            DataType::Decimal256(precision, scale)
        }
        _ => return Ok(None),
    };
    params.args = vec![cast(argument.clone(), wider)];
    Ok(Some(ty.clone()))
}
