//! `date_bin(size, time[, origin])` and `date_trunc(unit, time)` over every time that a `TIMESTAMP` holds.
//!
//! DataFusion's go through nanoseconds: of a time before 1677 or after 2262 the one makes NULL, so that the event stands
//! in no window, and the other an error, which would end the fold. Event times are unbounded, and 9999-12-31 is in use
//! as "for ever". Here both stay in microseconds; whatever else they are called with goes to DataFusion's.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Utc};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime::{date_bin, date_trunc};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
};

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY_US: i64 = 86_400_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateBin(Arc<ScalarUDF>, Signature);

impl DateBin {
    pub(super) fn new() -> Self {
        let original = date_bin();
        // TIMESTAMP is taken as it is, also as an origin, before anything is converted to nanoseconds.
        let size = DataType::Interval(IntervalUnit::MonthDayNano);
        let mut taken =
            vec![TypeSignature::Exact(vec![size.clone(), TIME]), TypeSignature::Exact(vec![size, TIME, TIME])];
        taken.push(original.signature().type_signature.clone());
        let signature = Signature::one_of(taken, original.signature().volatility);
        Self(original, signature)
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
        &self.1
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arguments)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.0.inner().output_ordering(input)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bins = match &args.args[..] {
            [ColumnarValue::Scalar(size), _] => Bins::of(size, Some(0)),
            [ColumnarValue::Scalar(size), _, ColumnarValue::Scalar(origin)] => Bins::of(size, origin_of(origin)),
            _ => None,
        };
        match (bins, &args.args[1]) {
            (Some(bins), time) if time.data_type() == TIME => mapped(time, |time| bins.start(time)),
            _ => self.0.inner().invoke_with_args(args),
        }
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
            && let DataType::Timestamp(TimeUnit::Microsecond, zone) = time.data_type()
        {
            match zone.map(|zone| zone.parse::<Tz>()) {
                None => return mapped(time, truncate),
                Some(Ok(zone)) => return mapped(time, |time| truncated_in(zone, time, truncate)),
                Some(Err(_)) => {}
            }
        }
        self.0.inner().invoke_with_args(args)
    }
}

/// Bins of one size, side by side from an origin in both directions.
#[derive(Clone, Copy)]
enum Bins {
    Micros { size: i64, origin: i64 },
    Months { size: i32, origin: i64 },
}

impl Bins {
    /// Bins of an interval: of some months alone, or of a whole number of microseconds, and some.
    fn of(size: &ScalarValue, origin: Option<i64>) -> Option<Self> {
        let ScalarValue::IntervalMonthDayNano(Some(size)) = size else { return None };
        let origin = origin?;
        match (size.months, size.days, size.nanoseconds) {
            (months @ 1.., 0, 0) => Some(Bins::Months { size: months, origin }),
            (0, days, nanoseconds) if nanoseconds % 1_000 == 0 => {
                let size = i64::from(days).checked_mul(DAY_US)?.checked_add(nanoseconds / 1_000)?;
                (size > 0).then_some(Bins::Micros { size, origin })
            }
            _ => None,
        }
    }

    /// The start of the bin that holds `time`; none if there is none in the calendar.
    fn start(self, time: i64) -> Option<i64> {
        match self {
            Bins::Micros { size, origin } => {
                let past = (i128::from(time) - i128::from(origin)).rem_euclid(i128::from(size));
                i64::try_from(i128::from(time) - past).ok()
            }
            Bins::Months { size, origin } => {
                let (at, first) = (DateTime::from_timestamp_micros(time)?, DateTime::from_timestamp_micros(origin)?);
                let between = (at.year() - first.year()) * 12 + at.month0() as i32 - first.month0() as i32;
                let months = between.div_euclid(size) * size;
                let start = months_after(first, months)?;
                // The origin may lie later in its month than `time` in its own.
                let start = if start > at { months_after(first, months - size)? } else { start };
                Some(start.timestamp_micros())
            }
        }
    }
}

fn months_after(time: DateTime<Utc>, months: i32) -> Option<DateTime<Utc>> {
    let count = Months::new(months.unsigned_abs());
    if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) }
}

/// An origin in microseconds.
fn origin_of(origin: &ScalarValue) -> Option<i64> {
    match origin {
        ScalarValue::TimestampSecond(Some(at), None) => at.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(Some(at), None) => at.checked_mul(1_000),
        ScalarValue::TimestampMicrosecond(Some(at), None) => Some(*at),
        ScalarValue::TimestampNanosecond(Some(at), None) if at % 1_000 == 0 => Some(at / 1_000),
        _ => None,
    }
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

/// A time cut down to a unit of its zone's clock. A beginning that the clock skips is where it goes on, one that it shows twice is
/// the first.
fn truncated_in(zone: Tz, time: i64, truncate: fn(i64) -> Option<i64>) -> Option<i64> {
    let utc = DateTime::from_timestamp_micros(time)?.naive_utc();
    let local = utc.checked_add_offset(zone.offset_from_utc_datetime(&utc).fix())?;
    let begin = DateTime::from_timestamp_micros(truncate(local.and_utc().timestamp_micros())?)?.naive_utc();
    let shown = |local: NaiveDateTime| zone.from_local_datetime(&local).earliest();
    let begin = shown(begin).or_else(|| shown(begin.checked_add_signed(TimeDelta::hours(1))?))?;
    Some(begin.timestamp_micros())
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
            let mapped = times.unary_opt::<_, TimestampMicrosecondType>(f);
            let mapped: ArrayRef = Arc::new(mapped.with_timezone_opt(times.timezone()));
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
    use arrow::datatypes::IntervalMonthDayNano;

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
    fn bins_of_months_and_of_origins_reach_as_far_as_times_do() {
        let bins = |months, days, origin| {
            let size = IntervalMonthDayNano::new(months, days, 0);
            let origin = parse_timestamp(&format!("{origin}T00:00:00Z")).expect("a time");
            Bins::of(&ScalarValue::IntervalMonthDayNano(Some(size)), Some(origin)).expect("bins")
        };
        for (months, days, origin, time, start) in [
            (1, 0, "1970-01-01", "9999-12-31T23:59:59Z", "9999-12-01"),
            (1, 0, "1970-01-01", "0001-01-31T00:00:00Z", "0001-01-01"),
            (3, 0, "1970-01-01", "1969-12-31T00:00:00Z", "1969-10-01"),
            (12, 0, "1970-04-01", "2300-03-31T00:00:00Z", "2299-04-01"),
            (1, 0, "2020-01-31", "2020-02-28T00:00:00Z", "2020-01-31"),
            (1, 0, "2020-01-31", "2020-02-29T00:00:00Z", "2020-02-29"),
            (1, 0, "2020-01-31", "2020-03-30T00:00:00Z", "2020-02-29"),
            (0, 7, "2001-01-01", "2001-01-01T00:00:00Z", "2001-01-01"),
            (0, 7, "2001-01-01", "2000-12-31T00:00:00Z", "2000-12-25"),
            (0, 7, "2001-01-01", "9999-12-31T00:00:00Z", "9999-12-27"),
        ] {
            let start = parse_timestamp(&format!("{start}T00:00:00Z"));
            let time = parse_timestamp(time).expect("a time");
            assert_eq!(bins(months, days, origin).start(time), start, "{months} {days} {origin} {time}");
        }
        let none = IntervalMonthDayNano::new(1, 1, 0);
        assert!(Bins::of(&ScalarValue::IntervalMonthDayNano(Some(none)), Some(0)).is_none());
    }

    #[test]
    fn units_begin_where_a_zones_clock_says() {
        for (zone, unit, time, begin) in [
            ("UTC", "month", "9999-12-31T23:59:59Z", "9999-12-01T00:00:00Z"),
            ("UTC", "day", "0001-01-01T12:00:00Z", "0001-01-01T00:00:00Z"),
            ("Europe/Berlin", "day", "2024-07-01T21:59:59Z", "2024-06-30T22:00:00Z"),
            ("Europe/Berlin", "day", "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z"),
            ("Europe/Berlin", "day", "2500-01-01T12:00:00Z", "2499-12-31T23:00:00Z"),
            ("+05:30", "hour", "2024-01-01T00:00:00Z", "2023-12-31T23:30:00Z"),
            // The clock went on from 00:00 to 01:00.
            ("America/Sao_Paulo", "day", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z"),
        ] {
            let [time, begin] = [time, begin].map(|text| parse_timestamp(text).expect("a time"));
            let (zone, truncate) = (zone.parse().expect("a zone"), truncation(unit).expect("a unit"));
            assert_eq!(truncated_in(zone, time, truncate), Some(begin), "{zone:?} {unit}");
        }
    }

    #[test]
    fn times_without_a_beginning_have_none() {
        assert_eq!(truncation("hour").expect("a unit")(i64::MIN), None);
        assert_eq!(truncation("month").expect("a unit")(i64::MIN), None);
        assert!(truncation("fortnight").is_none());
    }
}
