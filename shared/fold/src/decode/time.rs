//! Timestamps as text.

use std::borrow::Cow;

use speedate::{DateTime, MicrosecondsPrecisionOverflowBehavior, TimeConfigBuilder};

/// Microseconds since 1970 of an ISO 8601 date and time with `T` or a space between them; without a zone it is UTC.
/// What is below a microsecond is cut towards the past.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    // A zone may be hours alone, as PostgreSQL writes it: `2015-09-12 00:46:58+00`.
    let hours_alone = match text.as_bytes() {
        [time @ .., b'+' | b'-', hour, hours] => time.len() > 11 && hour.is_ascii_digit() && hours.is_ascii_digit(),
        _ => false,
    };
    let text = if hours_alone { Cow::Owned(format!("{text}:00")) } else { Cow::Borrowed(text) };
    let config = TimeConfigBuilder::new()
        .microseconds_precision_overflow_behavior(MicrosecondsPrecisionOverflowBehavior::Truncate)
        .build();
    let time = DateTime::parse_bytes_rfc3339_with_config(text.as_bytes(), &config).ok()?;
    // `timestamp_tz` is the instant: seconds since 1970 with the zone's offset taken off.
    Some(time.timestamp_tz() * 1_000_000 + i64::from(time.time.microsecond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_8601_with_and_without_a_zone() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01 00:00:01", Some(1_000_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-01T00:00:00.123456789Z", Some(123_456)),
            ("1969-12-31T23:59:59.9999999Z", Some(-1)),
            ("2015-09-12T00:46:58.771Z", Some(1_442_018_818_771_000)),
            ("1970-01-01 00:00:00+00", Some(0)),
            ("1970-01-01T00:00-01", Some(3_600_000_000)),
            ("1970-01-01T00:00:00.5+0130", Some(-5_399_500_000)),
            ("1970-01-01T00-01", None),
            ("2015-09-12", None),
            ("2015-09-12_00:46:58", None),
            ("2015-02-30T00:00:00Z", None),
            ("soon", None),
            ("", None),
            ("1442018818", None),
        ] {
            assert_eq!(parse_timestamp(text), micros, "{text}");
        }
    }
}
