//! The dialects of view SQL: what a statement means, how its events decode, how its states finish.
//!
//! A version keeps the dialect that it was declared under, so an upgrade of bifold changes no answer. New and changed views
//! get [`TODAY`]'s; `bifold upgrade` declares a view again under it.

use bifold_ledger::Dialect;

/// The dialect of new and changed views, and of queries.
pub const TODAY: Dialect = Dialect(3);

/// The first dialect whose constants are computed as the values of events are.
pub(crate) const EXACT_CONSTANTS: Dialect = Dialect(3);

const WRAPPING: &str = "arithmetic between whole-number constants wraps where it is beyond 64 bits";
const ROUNDED_TWICE: &str = "a decimal constant of more than 53 bits can become the neighbour of the nearest double";

/// What a dialect gets wrong that [`TODAY`]'s does not, for people; nothing for today's.
pub fn shortcomings(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::FIRST => &[
            "IS [NOT] DISTINCT FROM takes the AND and OR behind it for its operand",
            "LIKE, IN, BETWEEN, ~ and || do not bind as in PostgreSQL",
            "NOT of a NULL condition can be true: NOT IN, LIKE '%', ~ '.*'",
            "SIMILAR TO matches anywhere in the text",
            "min and max of DOUBLE are wrong for infinities and depend on the batch boundary for NaN and -0.0",
            "comparing, or choosing between, numbers of different types can lose values",
            "decimal literals are doubles",
            "times before 1677 and after 2262 can become NULL",
            "x / 0.0 is Infinity",
            "corr, covar, regr, stddev and var of large values depend on the batch boundary",
            "retention can be emptied by one wrong event time",
            "numbers in quotes are dead letters",
            "a record may have any number of elements",
            WRAPPING,
            ROUNDED_TWICE,
        ],
        Dialect(2) => &[WRAPPING, ROUNDED_TWICE],
        _ => &[],
    }
}
