//! `TIMESTAMP` is microseconds everywhere.
//!
//! DataFusion takes the word for nanoseconds, and turns a time that is compared with text into them; nanoseconds end in
//! 2262, event times do not.

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};

pub(crate) const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Plans `TIMESTAMP` and `DATETIME` without digits and zone.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, ty: &SqlType) -> Result<Option<FieldRef>> {
        Ok(match ty {
            SqlType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | SqlType::Datetime(None) => {
                Some(FieldRef::new(Field::new("", TIME, true)))
            }
            _ => None,
        })
    }
}

/// Takes text that is compared with a time for a time, and an interval that is compared with a span of time for a span: DataFusion
/// compares months, days and the rest one by one. It comes before types are coerced.
#[derive(Debug)]
pub(crate) struct Comparisons;

impl AnalyzerRule for Comparisons {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let made = plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let made = expr.transform_up(|expr| compared(expr, &schema))?;
                Ok(made.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(made.data)
    }

    fn name(&self) -> &'static str {
        "text compared with TIMESTAMP"
    }
}

pub(crate) fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // What has no type here (an outer query's column) is left to DataFusion.
    let is_time = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty == TIME);
    let is_span = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Duration(_)));
    let is_number = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty.is_integer());
    let odd_interval =
        |expr: &Expr| !is_interval(expr) && expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Interval(_)));
    Ok(match expr {
        // As DataFusion has it of its own TIMESTAMP: a number counts seconds.
        Expr::Cast(Cast { expr, field }) if *field.data_type() == TIME && is_number(&expr) => {
            Transformed::yes(cast(cast(*expr, DataType::Timestamp(TimeUnit::Second, None)), TIME))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (is_span(&left) && odd_interval(&right) || odd_interval(&left) && is_span(&right)) =>
        {
            return plan_err!("a span of time is compared with a constant interval alone, such as INTERVAL '25 hours'");
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (is_span(&left) && is_interval(&right) || is_interval(&left) && is_span(&right)) =>
        {
            let [left, right] = [left, right].map(|side| span(*side).map(Box::new));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: left?, op, right: right? }))
        }
        Expr::Between(Between { expr, negated, low, high })
            if is_span(&expr) && (is_interval(&low) || is_interval(&high)) =>
        {
            let [low, high] = [low, high].map(|end| span(*end).map(Box::new));
            Transformed::yes(Expr::Between(Between { expr, negated, low: low?, high: high? }))
        }
        Expr::InList(InList { expr, list, negated }) if is_span(&expr) && list.iter().any(is_interval) => {
            let list = list.into_iter().map(span).collect::<Result<_>>()?;
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let made = match (is_time(&left), is_time(&right)) {
                (true, false) if is_text(&right) => BinaryExpr { left, op, right: Box::new(cast(*right, TIME)) },
                (false, true) if is_text(&left) => BinaryExpr { left: Box::new(cast(*left, TIME)), op, right },
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            Transformed::yes(Expr::BinaryExpr(made))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_time(&expr) && (is_text(&low) || is_text(&high)) => {
            let [low, high] = [low, high].map(|end| Box::new(taken(*end)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) if is_time(&expr) && list.iter().any(is_text) => {
            let list = list.into_iter().map(taken).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        expr => Transformed::no(expr),
    })
}

fn is_interval(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(_)), _))
}

/// A constant interval as a span of time, which can be compared: a day is 24 hours in UTC; a month has no length.
pub(crate) fn span(expr: Expr) -> Result<Expr> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = &expr else { return Ok(expr) };
    if interval.months != 0 {
        return plan_err!("a span of time cannot be compared with months, which differ in length; write days");
    }
    let micros = i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000;
    Ok(Expr::Literal(ScalarValue::DurationMicrosecond(Some(micros)), None))
}

fn taken(expr: Expr) -> Expr {
    if is_text(&expr) { cast(expr, TIME) } else { expr }
}

pub(crate) fn is_text(expr: &Expr) -> bool {
    let text = |value: &ScalarValue| value.try_as_str().is_some_and(|text| text.is_some());
    matches!(expr, Expr::Literal(value, _) if text(value))
}

pub(crate) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
