//! Two expressions that differ by a CAST or by parentheses alone are two columns.
//!
//! DataFusion leaves both out of the names of expressions, so `sum(a)` and `sum(CAST(a AS DOUBLE))` clash. The operand of
//! every CAST, and arithmetic in parentheses, is wrapped in a marker whose name has them; once the plan is made, the
//! markers are taken out, and the names stay.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    self, Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Value,
};

use crate::rewrite;

/// The marker's name in SQL.
const MARKER: &str = "_cast";

/// How the type of a time in a zone begins.
const ZONE: &str = "AT TIME ZONE ";

/// The function that marks.
pub(crate) fn marker() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Marker(Signature::any(2, Volatility::Immutable))))
}

/// Marks the operand of a CAST, and arithmetic in parentheses.
pub(super) fn mark(expr: &mut SqlExpr) {
    let (operand, ty) = match expr {
        // The planner reads the text of an interval itself.
        SqlExpr::Cast { data_type: ast::DataType::Interval { .. }, .. } => return,
        SqlExpr::Cast { expr: operand, data_type, .. } => (operand, data_type.to_string()),
        SqlExpr::AtTimeZone { timestamp, time_zone } => (timestamp, format!("{ZONE}{time_zone}")),
        SqlExpr::Nested(operand) if matches!(**operand, SqlExpr::BinaryOp { .. }) => (operand, String::new()),
        _ => return,
    };
    let of = std::mem::replace(&mut **operand, SqlExpr::Value(Value::Null.into()));
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let ty = SqlExpr::Value(Value::SingleQuotedString(ty).into());
    **operand = SqlExpr::Function(ast::Function {
        name: ObjectName::from(vec![Ident::new(MARKER)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(of), argument(ty)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
}

/// The plan without markers, under the same names. `cast` makes what a CAST that somebody wrote becomes.
///
/// # Errors
/// DataFusion's failure.
pub fn unmarked(plan: LogicalPlan, cast: fn(datafusion::logical_expr::Cast) -> Expr) -> Result<LogicalPlan> {
    rewrite::expressions(plan, |expr, _| match expr {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if is_marker(&func) => {
            args.truncate(1);
            Ok(args.pop().map_or_else(|| Transformed::no(Expr::Literal(ScalarValue::Null, None)), Transformed::yes))
        }
        Expr::Cast(written) => Ok(Transformed::yes(cast(written))),
        expr => Ok(Transformed::no(expr)),
    })
}

fn is_marker(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Marker>().is_some()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker(Signature);

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        MARKER
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().map_or_else(|| internal_err!("a cast has an operand"), Ok)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [of, Expr::Literal(ty, _)] => Ok(match ty.to_string() {
                ty if ty.is_empty() => format!("({})", of.schema_name()),
                ty if ty.starts_with(ZONE) => format!("{} {ty}", of.schema_name()),
                ty => format!("CAST({} AS {ty})", of.schema_name()),
            }),
            _ => Ok(MARKER.to_string()),
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.schema_name(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().map_or_else(|| internal_err!("a cast has an operand"), Ok)
    }
}
