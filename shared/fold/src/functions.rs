//! The functions of view SQL beside DataFusion's own, and which of those may stand in a view.

mod approx_distinct;
pub(crate) mod canonical;
pub(crate) mod compare;
mod corr;
mod extremes;
mod moments;
pub(crate) mod or_null;
pub(crate) mod size;
mod tumble;
mod two;
mod windows;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use bifold_ledger::Dialect;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Functions that bifold adds, or puts in the place of DataFusion's.
pub(crate) fn scalars() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(tumble::Tumble::new())),
        Arc::new(ScalarUDF::from(windows::DateBin::new())),
        Arc::new(ScalarUDF::from(windows::DateTrunc::new())),
    ]
}

/// Functions as queries have them: those that could take all memory with one value fail before they do.
pub(crate) fn bounded(originals: &HashMap<String, Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    size::JUDGED.iter().filter_map(|name| originals.get(*name)).map(|of| or_null::bounded(Arc::clone(of))).collect()
}

/// Aggregates that bifold adds, or puts in the place of DataFusion's, in a dialect.
pub(crate) fn aggregates(dialect: Dialect, originals: &HashMap<String, Arc<AggregateUDF>>) -> Vec<AggregateUDF> {
    let mut made = vec![AggregateUDF::from(approx_distinct::ApproxDistinct::new())];
    if dialect.is_first() {
        made.push(AggregateUDF::from(corr::Corr::new()));
        return made;
    }
    made.extend([extremes::Extreme::min(), extremes::Extreme::max()].map(AggregateUDF::from));
    made.extend(moments::all(originals));
    made
}

/// Whether a function fails for no value.
pub(crate) fn never_fails(function: &ScalarUDF) -> bool {
    canonical::is_canonical(function) || compare::is_compare(function)
}

/// How an aggregate treats the order of its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// It does not matter.
    Free,
    /// It decides the result: an ORDER BY is needed, made unique by the event's place in the log.
    Needed,
    /// It names what is aggregated (`WITHIN GROUP`), and ties do not matter.
    Argument,
}

/// The aggregates whose states merge: name, how they treat order. DataFusion's nth_value() is none of them: it takes its
/// rows as they come and relies on a sort below it, which a fold does not make.
const MERGEABLE: [(&str, Order); 39] = [
    ("count", Order::Free),
    ("sum", Order::Free),
    ("avg", Order::Free),
    ("min", Order::Free),
    ("max", Order::Free),
    ("stddev", Order::Free),
    ("stddev_pop", Order::Free),
    ("var", Order::Free),
    ("var_samp", Order::Free),
    ("var_pop", Order::Free),
    ("covar_samp", Order::Free),
    ("covar_pop", Order::Free),
    ("corr", Order::Free),
    ("regr_slope", Order::Free),
    ("regr_intercept", Order::Free),
    ("regr_count", Order::Free),
    ("regr_r2", Order::Free),
    ("regr_avgx", Order::Free),
    ("regr_avgy", Order::Free),
    ("regr_sxx", Order::Free),
    ("regr_syy", Order::Free),
    ("regr_sxy", Order::Free),
    ("bool_and", Order::Free),
    ("bool_or", Order::Free),
    ("bit_and", Order::Free),
    ("bit_or", Order::Free),
    ("bit_xor", Order::Free),
    ("median", Order::Free),
    ("approx_median", Order::Free),
    ("approx_distinct", Order::Free),
    ("percentile_cont", Order::Argument),
    ("approx_percentile_cont", Order::Argument),
    ("approx_percentile_cont_with_weight", Order::Argument),
    ("first_value", Order::Needed),
    ("last_value", Order::Needed),
    ("array_agg", Order::Needed),
    ("string_agg", Order::Needed),
    ("quantile_cont", Order::Argument),
    ("mean", Order::Free),
];

/// How the aggregate of this name treats order; none if its states do not merge.
pub(crate) fn order_of(name: &str) -> Option<Order> {
    MERGEABLE.iter().find(|(known, _)| *known == name).map(|(_, order)| *order)
}

/// Aggregates whose result is within an error of the true one, whatever the order of merging.
pub(crate) fn is_quantile_sketch(name: &str) -> bool {
    matches!(name, "approx_median" | "approx_percentile_cont" | "approx_percentile_cont_with_weight")
}

/// The id of an aggregate's state: what is stored under it can be merged with whatever has the same id, in every
/// version of bifold. Held by golden files.
pub(crate) fn state_id(dialect: Dialect, name: &str, distinct: bool, ordered: bool, arguments: &[DataType]) -> String {
    if name == "approx_distinct" {
        return "hll8_12/1".to_string();
    }
    let mut id = name.to_string();
    if distinct {
        id.push_str("_distinct");
    }
    if ordered {
        id.push_str("_ordered");
    }
    if name != "count" || distinct {
        for argument in arguments {
            id.push('_');
            id.push_str(&short(argument));
        }
    }
    let is_new = moments::is_moment(name) && !distinct
        || matches!(name, "min" | "max") && arguments.iter().any(DataType::is_floating);
    format!("{id}/{}", if is_new && !dialect.is_first() { 2 } else { 1 })
}

fn short(ty: &DataType) -> String {
    match ty {
        DataType::Boolean => "bool".to_string(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => format!("{ty}").replace("Int", "i"),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            format!("{ty}").replace("UInt", "u")
        }
        DataType::Float32 => "f32".to_string(),
        DataType::Float64 => "f64".to_string(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_string(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("dec{p}.{s}"),
        DataType::Timestamp(..) => "time".to_string(),
        other => format!("{other}").to_lowercase().replace([' ', '"'], ""),
    }
}
