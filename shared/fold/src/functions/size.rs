//! Values that an event could make too large: the functions whose arguments say how large their result is.
//!
//! A padding, a repetition or a series of a thousand million would end the process, not the query.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{Result, exec_err, resources_err};
use datafusion::logical_expr::ColumnarValue;

/// The longest value, in bytes or elements, that a view makes of lengths that its arguments give.
pub(crate) const LONGEST: i64 = 1 << 16;
/// The same for functions whose arguments give the most that a value may become, which it seldom does.
const LONGEST_AT_MOST: i64 = 1 << 26;

/// The functions that are judged.
pub(super) const JUDGED: [&str; 18] = [
    "array_append",
    "array_concat",
    "array_prepend",
    "array_repeat",
    "array_resize",
    "array_to_string",
    "concat",
    "concat_ws",
    "generate_series",
    "levenshtein",
    "lpad",
    "make_array",
    "range",
    "regexp_replace",
    "repeat",
    "replace",
    "rpad",
    "space",
];

/// What calls may ask for.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    /// In an event: each value is bounded.
    Each,
    /// In a query: what all rows of a batch ask for together.
    Together {
        /// The rows of the batch.
        rows: usize,
        /// The most bytes or elements.
        most: u64,
    },
}

/// The most bytes or elements that a call of a query may ask for in a batch, if the query's memory has room for them.
pub(crate) const MOST_TOGETHER: u64 = 1 << 26;
/// The most bytes or elements that a call of a view makes of the events of one batch.
const MOST_OF_EVENTS: i128 = 1 << 26;
/// What the failure of a batch says that a smaller one would not have.
pub(crate) const IN_ONE_BATCH: &str = "in one batch of events";
/// The least that each of many calls has.
const LEAST_TOGETHER: u64 = 1 << 16;
/// The most pairs of characters that a call compares in a batch: seconds.
const MOST_PAIRS: i128 = 1 << 32;

/// What each of so many calls may ask for in a batch, of a query with so much memory: together they take half of it.
pub(crate) fn share(memory: u64, calls: u64) -> u64 {
    (memory / 2 / calls.max(1)).clamp(LEAST_TOGETHER, MOST_TOGETHER.max(memory / 8))
}

/// Whether the results of a function, or of the operator `||`, are judged.
pub(crate) fn is_judged(name: &str) -> bool {
    name == "||" || JUDGED.contains(&name)
}

/// Fails if a row of a call asks for too much.
pub(super) fn check(function: &str, args: &[ColumnarValue], bound: Bound) -> Result<()> {
    let at_most = |function: &str, most, length, times| at_most(function, most, length, times, bound);
    let series = |function: &str, from, to, step| series(function, from, to, step, bound);
    match (function, args) {
        ("lpad" | "rpad" | "array_resize", [_, asked, ..]) | ("space", [asked]) => {
            at_most(function, LONGEST, numbers(asked)?, one())
        }
        ("repeat", [text, times]) => at_most(function, LONGEST, lengths(text)?, numbers(times)?),
        ("array_repeat", [value, times]) => {
            at_most(function, LONGEST, numbers(times)?, one())?;
            at_most(function, LONGEST, lengths(value)?, numbers(times)?)
        }
        ("replace" | "regexp_replace", [text, _, by, ..]) => {
            at_most(function, LONGEST_AT_MOST, lengths(text)?, lengths(by)?)
        }
        ("array_to_string", [list, between, ..]) => {
            at_most(function, LONGEST_AT_MOST, lengths(list)?, lengths(between)?)
        }
        ("levenshtein", [one, other]) => pairs(lengths(one)?, lengths(other)?, bound),
        // Of an event's own values they make nothing large.
        ("concat" | "concat_ws" | "||" | "array_append" | "array_concat" | "array_prepend" | "make_array", args)
            if matches!(bound, Bound::Together { .. }) =>
        {
            let lengths = args.iter().map(lengths).collect::<Result<Vec<_>>>()?;
            let rows = lengths.iter().map(Vec::len).max().unwrap_or(0);
            let row = |row: usize| lengths.iter().filter_map(|of| at(of, row)).sum();
            judge(function, (0..rows).map(row), rows, LONGEST, bound)
        }
        ("range" | "generate_series", [to]) => series(function, one(), numbers(to)?, one()),
        ("range" | "generate_series", [from, to]) => series(function, numbers(from)?, numbers(to)?, one()),
        ("range" | "generate_series", [from, to, step]) => series(function, numbers(from)?, numbers(to)?, steps(step)?),
        _ => Ok(()),
    }
}

type Numbers = Vec<Option<i64>>;

fn one() -> Numbers {
    vec![Some(1)]
}

/// Row by row: the one value of a constant stands for every row.
fn at(values: &Numbers, row: usize) -> Option<i128> {
    let value = if values.len() == 1 { values[0] } else { values.get(row).copied().flatten() };
    value.map(i128::from)
}

fn at_most(function: &str, most: i64, length: Numbers, times: Numbers, bound: Bound) -> Result<()> {
    let rows = length.len().max(times.len());
    let asked = (0..rows).filter_map(|row| Some(at(&length, row)? * at(&times, row)?));
    judge(function, asked, rows, most, bound)
}

fn makes_elements(function: &str) -> bool {
    matches!(function, "range" | "generate_series")
        || (function.starts_with("array_") || function == "make_array") && function != "array_to_string"
}

/// Judges what each row asks for.
fn judge(function: &str, asked: impl Iterator<Item = i128>, rows: usize, most: i64, bound: Bound) -> Result<()> {
    match bound {
        Bound::Each => {
            let mut together = 0;
            for asked in asked {
                if asked > i128::from(most) {
                    return exec_err!("{function} asks for {asked} in one value; the most is {most}");
                }
                together += asked.max(0);
            }
            // Each of them is admitted: in a smaller batch they are made.
            if rows > 1 && together > MOST_OF_EVENTS {
                return resources_err!("{function} asks for {together} {IN_ONE_BATCH}; the most is {MOST_OF_EVENTS}");
            }
        }
        Bound::Together { rows: all, most: most_together } => {
            // One row of constants stands for all.
            let times = if rows == 1 { all.max(1) as i128 } else { 1 };
            // An element takes eight bytes, and more where it is a text.
            let width = if makes_elements(function) { 8 } else { 1 };
            let together = asked.map(|asked| asked.max(0)).sum::<i128>() * times * width;
            // Few of the replacements that are possible happen.
            let together = if most == LONGEST_AT_MOST { together / 64 } else { together };
            if together > i128::from(most_together) {
                return resources_err!("{function} asks for {together} bytes at once; the most is {most_together}");
            }
        }
    }
    Ok(())
}

/// Texts that are compared character by character with each other.
fn pairs(one: Numbers, other: Numbers, bound: Bound) -> Result<()> {
    let rows = one.len().max(other.len());
    let mut all = (0..rows).filter_map(|row| Some(at(&one, row)? * at(&other, row)?));
    let (asked, most) = match bound {
        Bound::Each => (all.max().unwrap_or(0), MOST_PAIRS / 4),
        Bound::Together { rows: of_constants, .. } if rows == 1 => {
            (all.next().unwrap_or(0) * of_constants.max(1) as i128, MOST_PAIRS)
        }
        Bound::Together { .. } => (all.sum(), MOST_PAIRS),
    };
    match (asked > most, bound) {
        (false, _) => Ok(()),
        // NULL for this event.
        (true, Bound::Each) => exec_err!("levenshtein compares {asked} pairs of characters; the most is {most}"),
        (true, Bound::Together { .. }) => {
            resources_err!("levenshtein compares {asked} pairs of characters; the most is {most}")
        }
    }
}

/// A series of numbers or of times.
fn series(function: &str, from: Numbers, to: Numbers, step: Numbers, bound: Bound) -> Result<()> {
    let rows = from.len().max(to.len()).max(step.len());
    let length = |row| Some((at(&to, row)? - at(&from, row)?).abs() / at(&step, row)?.abs().max(1));
    judge(function, (0..rows).filter_map(length), rows, LONGEST, bound)
}

/// Lengths of texts in bytes, and of lists in elements of eight bytes; anything else is of length 1.
fn lengths(value: &ColumnarValue) -> Result<Numbers> {
    let array = one_or_all(value)?;
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary => numbers_of(&length(&array)?),
        DataType::List(_) => {
            let elements = numbers_of(&length(&array)?)?;
            let all: i64 = elements.iter().flatten().sum();
            let bytes = array.to_data().get_slice_memory_size().unwrap_or(0) as i64;
            // On average: lists of lists, and of texts, have larger ones.
            let width = (bytes / all.max(1) / 8).max(1);
            Ok(elements.into_iter().map(|length| Some(length? * width)).collect())
        }
        _ => Ok(one()),
    }
}

/// Whole numbers; times are numbers, too: of microseconds.
fn numbers(value: &ColumnarValue) -> Result<Numbers> {
    let array = one_or_all(value)?;
    match array.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            numbers_of(&cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, None))?)
        }
        _ => numbers_of(&array),
    }
}

fn numbers_of(array: &ArrayRef) -> Result<Numbers> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect())
}

/// Steps of a series: numbers, or the shortest that an interval may be, in microseconds.
fn steps(value: &ColumnarValue) -> Result<Numbers> {
    let array = one_or_all(value)?;
    if !matches!(array.data_type(), DataType::Interval(_)) {
        return numbers(value);
    }
    let array = cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let micros = array.as_primitive::<IntervalMonthDayNanoType>().iter().map(|step| {
        let step = step?;
        let days = i128::from(step.months) * 28 + i128::from(step.days);
        i64::try_from(days * 86_400_000_000 + i128::from(step.nanoseconds) / 1_000).ok()
    });
    Ok(micros.collect())
}

fn one_or_all(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(array.clone()),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}
