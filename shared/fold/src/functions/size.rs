//! Values that an event could make too large: the functions whose arguments say how large their result is.
//!
//! A padding, a repetition or a series of a thousand million would end the process, not the query.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;

/// The longest value, in characters or elements, that a view makes from an argument.
pub(crate) const LONGEST: i64 = 1 << 20;

/// Fails if a row of a call asks for more than [`LONGEST`].
pub(super) fn check(function: &str, args: &[ColumnarValue]) -> Result<()> {
    let length = match function {
        "lpad" | "rpad" | "repeat" | "array_repeat" | "array_resize" => args.get(1),
        "space" => args.first(),
        "range" | "generate_series" => return series(function, args),
        _ => None,
    };
    let Some(length) = length else { return Ok(()) };
    match numbers(length)?.into_iter().flatten().find(|asked| *asked > LONGEST) {
        Some(asked) => exec_err!("{function} asks for {asked} in one value; the most is {LONGEST}"),
        None => Ok(()),
    }
}

/// A series of numbers or of times.
fn series(function: &str, args: &[ColumnarValue]) -> Result<()> {
    let (from, to) = match args {
        [to] => (None, to),
        [from, to, ..] => (Some(from), to),
        [] => return Ok(()),
    };
    let to = numbers(to)?;
    let from = from.map(numbers).transpose()?.unwrap_or_else(|| vec![Some(0)]);
    let steps = args.get(2).map(steps).transpose()?.unwrap_or_else(|| vec![Some(1)]);
    for row in 0..to.len().max(from.len()).max(steps.len()) {
        let at =
            |values: &[Option<i64>]| if values.len() == 1 { values[0] } else { values.get(row).copied().flatten() };
        let (Some(from), Some(to), Some(step)) = (at(&from), at(&to), at(&steps)) else { continue };
        let length = (i128::from(to) - i128::from(from)).abs() / i128::from(step).abs().max(1);
        if length > i128::from(LONGEST) {
            return exec_err!("{function} asks for {length} values in one; the most is {LONGEST}");
        }
    }
    Ok(())
}

/// Whole numbers; times as nanoseconds or days are numbers, too.
fn numbers(value: &ColumnarValue) -> Result<Vec<Option<i64>>> {
    let array = one_or_all(value)?;
    let array = match array.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            let time = cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            cast(&time, &DataType::Int64)?
        }
        _ => cast(&array, &DataType::Int64)?,
    };
    Ok(array.as_primitive::<Int64Type>().iter().collect())
}

/// Steps of a series: numbers, or the shortest that an interval may be, in microseconds.
fn steps(value: &ColumnarValue) -> Result<Vec<Option<i64>>> {
    let array = one_or_all(value)?;
    if !matches!(array.data_type(), DataType::Interval(_)) {
        return numbers(value);
    }
    let array = cast(&array, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
    let micros = array.as_primitive::<IntervalMonthDayNanoType>().iter().map(|step| {
        let step = step?;
        let days = i128::from(step.months) * 28 + i128::from(step.days);
        i64::try_from(days * 86_400_000_000 + i128::from(step.nanoseconds) / 1_000).ok()
    });
    Ok(micros.collect())
}

fn one_or_all(value: &ColumnarValue) -> Result<arrow::array::ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(array.clone()),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}
