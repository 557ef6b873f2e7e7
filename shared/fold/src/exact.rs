//! What bifold puts in the place of DataFusion's coercions and simplifications, so that no value is lost unseen.
//!
//! - [`coerce`]: operands of different types get one that holds both
//! - [`floats`]: one NaN, one zero
//! - [`division`]: by zero is NULL
//! - [`arithmetic`]: of integers, in queries, fails where it would wrap
//! - [`constants`]: constants are folded, and nothing else is simplified
//! - [`implicit`]: refuses what is still converted with loss, though nobody wrote a CAST
//!
//! `docs/upstream.md` lists the faults of DataFusion and its parser that these work around.

pub(crate) mod arithmetic;
pub(crate) mod coerce;
pub(crate) mod constants;
pub(crate) mod division;
pub(crate) mod floats;
pub(crate) mod implicit;
pub(crate) mod nearest;
pub(crate) mod numbers;

use std::sync::Arc;

use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};

/// The analyzer's rules.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(coerce::Coerce)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(division::ByZero));
    rules.push(Arc::new(floats::OneNanOneZero));
    rules
}

/// Rules of DataFusion's optimizer that give wrong answers: rewrites that forget NULL, columns that get lost, aggregates that are
/// told by their names.
const WRONG: [&str; 4] = [
    "simplify_expressions",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
    "single_distinct_aggregation_to_group_by",
];

/// The optimizer's rules. `most` bounds the size of a constant, in bytes.
pub(crate) fn optimizer_rules(most: Option<u64>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let kept = Optimizer::new().rules.into_iter().filter(|rule| !WRONG.contains(&rule.name()));
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(constants::Fold { most, exact: true })];
    rules.extend(kept);
    rules
}

#[cfg(test)]
mod tests {
    use datafusion::optimizer::Optimizer;

    #[test]
    fn the_rules_that_are_left_out_exist() {
        let known: Vec<String> = Optimizer::new().rules.iter().map(|rule| rule.name().to_string()).collect();
        for name in super::WRONG {
            assert!(known.iter().any(|known| known == name), "{name} is not among {known:?}");
        }
    }
}
