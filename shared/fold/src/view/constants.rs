//! Refuses calls whose constant arguments are wrong for every event: a unit that there is not, a window of no length, a
//! regular expression that is none. Made total, such a call would be NULL for every event.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs};

/// Functions that take any time, text or number beside constants that are right.
const JUDGED: [&str; 10] = [
    "tumble",
    "date_bin",
    "date_trunc",
    "date_part",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "encode",
];

/// Tries each such call out with ordinary values in the place of what comes from events.
pub(super) fn check(plan: &LogicalPlan, options: &Arc<ConfigOptions>) -> Result<()> {
    plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    try_out(call, &schema, options)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn try_out(call: &ScalarFunction, schema: &DFSchema, options: &Arc<ConfigOptions>) -> Result<()> {
    let name = call.func.name();
    if !JUDGED.contains(&name) || !call.args.iter().any(|arg| matches!(arg, Expr::Literal(..))) {
        return Ok(());
    }
    let (mut args, mut fields, mut constants): (Vec<_>, Vec<FieldRef>, Vec<_>) = (vec![], vec![], vec![]);
    for arg in &call.args {
        let ty = arg.get_type(schema)?;
        let (constant, value) = match arg {
            Expr::Literal(value, _) => (Some(value.clone()), value.clone()),
            _ => match ordinary(&ty) {
                Some(value) => (None, value),
                None => return Ok(()),
            },
        };
        fields.push(Arc::new(Field::new("arg", ty, true)));
        args.push(match constant {
            Some(_) => ColumnarValue::Scalar(value),
            None => ColumnarValue::Array(value.to_array()?),
        });
        constants.push(constant);
    }
    let scalars: Vec<Option<&ScalarValue>> = constants.iter().map(Option::as_ref).collect();
    let return_field =
        call.func.return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars })?;
    let config_options = Arc::clone(options);
    let tried = call.func.invoke_with_args(ScalarFunctionArgs {
        args,
        arg_fields: fields,
        number_rows: 1,
        return_field,
        config_options,
    });
    match tried {
        Ok(_) => Ok(()),
        Err(error) => plan_err!("{name}() fails for every event: {}", error.strip_backtrace()),
    }
}

/// An ordinary value of a type; none of types whose values decide whether a call is right.
fn ordinary(ty: &DataType) -> Option<ScalarValue> {
    match ty {
        // 2026-01-01
        DataType::Timestamp(unit, zone) => {
            let per_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            let at = Some(1_767_225_600i64 * per_second);
            Some(match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(at, zone.clone()),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(at, zone.clone()),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(at, zone.clone()),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(at, zone.clone()),
            })
        }
        DataType::Date32 => Some(ScalarValue::Date32(Some(20_454))),
        DataType::Utf8 => Some(ScalarValue::from("a")),
        DataType::Int64 => Some(ScalarValue::from(1i64)),
        _ => None,
    }
}
