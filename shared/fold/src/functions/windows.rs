//! `date_bin(size, time)` and `date_trunc(unit, time)` over every time that a `TIMESTAMP` holds.
//!
//! DataFusion's go through nanoseconds: of a time before 1677 or after 2262 the one makes NULL, so that the event stands
//! in no window, and the other an error, which would end the fold. Event times are unbounded, and 9999-12-31 is in use
//! as "for ever". Here both stay in microseconds; whatever else they are called with goes to DataFusion's.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime::{date_bin, date_trunc};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY_US: i64 = 86_400_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateBin(Arc<ScalarUDF>);

impl DateBin {
    pub(super) fn new() -> Self {
        Self(date_bin())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc(Arc<ScalarUDF>);

impl DateTrunc {
    pub(super) fn new() -> Self {
        Self(date_trunc())
    }
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arguments)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.0.inner().output_ordering(input)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [ColumnarValue::Scalar(size), time] = &args.args[..]
            && let Some(size) = micros_of(size)
            && time.data_type() == TIME
        {
            return mapped(time, |time| time.checked_sub(time.rem_euclid(size)));
        }
        self.0.inner().invoke_with_args(args)
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.inner().return_field_from_args(args)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.0.inner().output_ordering(input)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [ColumnarValue::Scalar(unit), time] = &args.args[..]
            && let Some(Some(unit)) = unit.try_as_str()
            && let Some(truncate) = truncation(&unit.to_lowercase())
            && time.data_type() == TIME
        {
            return mapped(time, truncate);
        }
        self.0.inner().invoke_with_args(args)
    }
}

/// The length of an interval without months, if it is a whole number of microseconds, and some.
fn micros_of(interval: &ScalarValue) -> Option<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else { return None };
    if interval.months != 0 || interval.nanoseconds % 1_000 != 0 {
        return None;
    }
    let days = i64::from(interval.days).checked_mul(DAY_US)?;
    days.checked_add(interval.nanoseconds / 1_000).filter(|size| *size > 0)
}

/// How times are cut down to a unit; none if it is no such unit.
fn truncation(unit: &str) -> Option<fn(i64) -> Option<i64>> {
    fn to<const SIZE: i64>(time: i64) -> Option<i64> {
        time.checked_sub(time.rem_euclid(SIZE))
    }
    Some(match unit {
        "microsecond" => Some,
        "millisecond" => to::<1_000>,
        "second" => to::<1_000_000>,
        "minute" => to::<60_000_000>,
        "hour" => to::<3_600_000_000>,
        "day" => to::<DAY_US>,
        "week" => {
            |time| to_date(time, |date| date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into())))
        }
        "month" => |time| to_date(time, |date| date.with_day(1)),
        "quarter" => |time| to_date(time, |date| date.with_day(1)?.with_month(date.month0() / 3 * 3 + 1)),
        "year" => |time| to_date(time, |date| date.with_ordinal(1)),
        _ => return None,
    })
}

fn to_date(time: i64, first: impl Fn(NaiveDate) -> Option<NaiveDate>) -> Option<i64> {
    let date = first(DateTime::from_timestamp_micros(time)?.date_naive())?;
    Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
}

/// `f` of every time; what it has none for is NULL.
fn mapped(time: &ColumnarValue, f: impl Fn(i64) -> Option<i64>) -> Result<ColumnarValue> {
    Ok(match time {
        ColumnarValue::Array(array) => {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            let mapped: ArrayRef = Arc::new(times.unary_opt::<_, TimestampMicrosecondType>(f));
            ColumnarValue::Array(mapped)
        }
        ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time, zone)) => {
            ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(time.and_then(f), zone.clone()))
        }
        ColumnarValue::Scalar(other) => ColumnarValue::Scalar(other.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::parse_timestamp;

    #[test]
    fn units_begin_where_calendars_say() {
        for (unit, time, begin) in [
            ("microsecond", "2015-09-12T00:46:58.771001Z", "2015-09-12T00:46:58.771001Z"),
            ("millisecond", "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999Z"),
            ("second", "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59Z"),
            ("minute", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:00Z"),
            ("hour", "0001-01-01T00:59:59Z", "0001-01-01T00:00:00Z"),
            ("day", "2262-04-12T01:00:00Z", "2262-04-12T00:00:00Z"),
            ("week", "2021-01-03T23:00:00Z", "2020-12-28T00:00:00Z"),
            ("week", "2020-12-28T00:00:00Z", "2020-12-28T00:00:00Z"),
            ("week", "1500-06-15T00:00:00Z", "1500-06-11T00:00:00Z"),
            ("month", "9999-12-31T23:59:59.999999Z", "9999-12-01T00:00:00Z"),
            ("quarter", "2016-02-29T12:00:00Z", "2016-01-01T00:00:00Z"),
            ("quarter", "2016-05-31T12:00:00Z", "2016-04-01T00:00:00Z"),
            ("year", "0001-12-31T12:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            let [time, begin] = [time, begin].map(|text| parse_timestamp(text).expect("a time"));
            let truncate = truncation(unit).expect("a unit");
            assert_eq!(truncate(time), Some(begin), "{unit} of {time}");
            assert_eq!(truncate(begin), Some(begin), "{unit} of {begin}");
        }
    }

    #[test]
    fn times_without_a_beginning_have_none() {
        assert_eq!(truncation("hour").expect("a unit")(i64::MIN), None);
        assert_eq!(truncation("month").expect("a unit")(i64::MIN), None);
        assert!(truncation("fortnight").is_none());
    }
}
