//! From JSON values to columns: what each type holds, and to which digit.

use bifold_fold::Source;
use proptest::prelude::*;
use std::sync::Arc;

use crate::support::{elements, record, source};

/// What the column `v` of this type holds of a JSON value; `!` if it holds none.
fn value(source: &Arc<Source>, json: &str) -> String {
    let text = format!("{{\"v\":{json}}}");
    let [element] = &elements(source, record(text.as_bytes()))[..] else { panic!("{json} is not one element") };
    match element.strip_prefix("0: ").expect("it is the first element") {
        "!wrong_type" => "!".to_string(),
        reason if reason.starts_with('!') => panic!("{json}: {reason}"),
        value => value.to_string(),
    }
}

fn check(ty: &str, cases: &[(&str, &str)]) {
    check_with(ty, "", cases);
}

fn check_with(ty: &str, options: &str, cases: &[(&str, &str)]) {
    let source = source(&format!("v {ty}"), options);
    for (json, expected) in cases {
        assert_eq!(value(&source, json), *expected, "{json} as {ty}{options}");
    }
}

#[test]
fn missing_and_null_are_null_in_every_type() {
    for ty in
        ["BOOLEAN", "INT", "BIGINT", "DOUBLE", "DECIMAL(5,2)", "TEXT", "TIMESTAMP", "JSON", "STRUCT<a INT>", "INT[]"]
    {
        check(ty, &[("null", "NULL"), ("null,\"w\":1", "NULL")]);
        assert_eq!(elements(&source(&format!("v {ty}"), ""), record(b"{}")), ["0: NULL"], "{ty}");
    }
}

#[test]
fn bigint_and_int_hold_integral_numbers_in_range() {
    let both = [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("1", "1"),
        ("1.0", "1"),
        ("1.000000000000000000000000000000000000000000", "1"),
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("1200e-2", "12"),
        ("12.5e1", "125"),
        ("0.001e3", "1"),
        ("2147483647", "2147483647"),
        ("-2147483648", "-2147483648"),
        ("1.5", "!"),
        ("1e-1", "!"),
        ("0.1", "!"),
        ("1.00000000000000000000000000000000000000000000000001", "!"),
        ("1e400", "!"),
        ("1e-400", "!"),
        ("1e99999999999999999999999", "!"),
        ("1e-99999999999999999999999", "!"),
        ("0e99999999999999999999999", "0"),
        ("\"1\"", "1"),
        ("\"-1.0e1\"", "-10"),
        ("\"1.5\"", "!"),
        ("\" 1\"", "!"),
        ("\"01\"", "!"),
        ("\"1 2\"", "!"),
        ("true", "!"),
        ("[1]", "!"),
        ("{}", "!"),
        ("\"\"", "!"),
    ];
    check("BIGINT", &both);
    check("INT", &both);
    check("INT", &[("2147483648", "!"), ("-2147483649", "!"), ("2147483648.0", "!"), ("1e10", "!")]);
    check(
        "BIGINT",
        &[
            ("2147483648", "2147483648"),
            ("9007199254740993", "9007199254740993"),
            ("9007199254740993.0", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("922337203685477580700e-2", "9223372036854775807"),
            ("9223372036854775808", "!"),
            ("-9223372036854775809", "!"),
            ("9223372036854775807.5", "!"),
            ("1e18", "1000000000000000000"),
            ("1e19", "!"),
            ("340282366920938463463374607431768211456", "!"),
            ("340282366920938463463374607431768211457", "!"),
        ],
    );
}

#[test]
fn an_exponent_may_be_as_long_as_a_record() {
    // A million zeros behind the point, made good by the exponent.
    let zeros = "0".repeat(1_000_010);
    let text = format!("0.{zeros}7e1000011");
    check("BIGINT", &[(&text, "7")]);
    check("DECIMAL(3,1)", &[(&text, "7.0")]);
}

#[test]
fn double_holds_numbers() {
    check(
        "DOUBLE",
        &[
            ("0.1", "0.1"),
            ("1", "1.0"),
            ("-0.0", "-0.0"),
            ("1e308", "1e308"),
            ("1.7976931348623157e308", "1.7976931348623157e308"),
            ("5e-324", "5e-324"),
            ("1e-400", "0.0"),
            ("9007199254740993", "9007199254740992.0"),
            ("123456789012345678901234567890", "1.2345678901234568e29"),
            ("1e309", "!"),
            ("-1e309", "!"),
            ("\"0.1\"", "0.1"),
            ("\"1e999\"", "!"),
            ("\"Infinity\"", "!"),
            ("\"NaN\"", "!"),
            ("true", "!"),
        ],
    );
}

#[test]
fn decimals_come_from_the_digits() {
    check(
        "DECIMAL(10,2)",
        &[
            ("0.1", "0.10"),
            ("12.34", "12.34"),
            ("12.3400000000000000000000000000000000000000", "12.34"),
            ("-0.01", "-0.01"),
            ("-0", "0.00"),
            ("7", "7.00"),
            ("1e2", "100.00"),
            ("1234e-2", "12.34"),
            ("99999999.99", "99999999.99"),
            ("-99999999.99", "-99999999.99"),
            ("12.345", "!"),
            ("0.001", "!"),
            ("1e-3", "!"),
            ("99999999.991", "!"),
            ("100000000", "!"),
            ("1e8", "!"),
            ("\"1.00\"", "1.00"),
            ("\"1.001\"", "!"),
            ("\"1,00\"", "!"),
        ],
    );
    // What a double would lose.
    check(
        "DECIMAL(19,2)",
        &[("90071992547409.93", "90071992547409.93"), ("12345678901234567.89", "12345678901234567.89")],
    );
    let nines = "9".repeat(38);
    check(
        "DECIMAL(38,0)",
        &[(&nines, &nines), (&format!("{nines}0"), "!"), ("1e37", &format!("1{}", "0".repeat(37))), ("1e38", "!")],
    );
    let fraction = format!("0.{nines}");
    check(
        "DECIMAL(38,38)",
        &[
            (&fraction, &fraction),
            (&format!("0.0{nines}"), "!"),
            ("1", "!"),
            ("1e-38", &format!("0.{}1", "0".repeat(37))),
        ],
    );
    check("DECIMAL(1)", &[("9", "9"), ("9.0", "9"), ("10", "!"), ("0.9", "!")]);
}

#[test]
fn text_holds_strings_alone() {
    check(
        "TEXT",
        &[
            ("\"\"", ""),
            ("\"x\"", "x"),
            ("\"null\"", "null"),
            (r#""a\"\\\/\n\u00e9\ud83d\ude00""#, "a\"\\/\n\u{e9}\u{1f600}"),
            ("\"\u{1f600} é\"", "\u{1f600} é"),
            (r#""\u0000""#, "\0"),
            ("1", "!"),
            ("true", "!"),
            ("[]", "!"),
            ("{}", "!"),
        ],
    );
}

#[test]
fn boolean_holds_true_and_false_alone() {
    check("BOOLEAN", &[("true", "true"), ("false", "false"), ("0", "!"), ("1", "!"), ("\"true\"", "!"), ("[]", "!")]);
}

#[test]
fn timestamps_are_iso_8601_in_utc_and_microseconds() {
    check(
        "TIMESTAMP",
        &[
            ("\"2015-09-12T00:46:58Z\"", "2015-09-12T00:46:58"),
            ("\"2015-09-12T00:46:58\"", "2015-09-12T00:46:58"),
            ("\"2015-09-12 00:46:58\"", "2015-09-12T00:46:58"),
            ("\"2015-09-12 00:46\"", "2015-09-12T00:46:00"),
            ("\"2015-09-12t00:46:58z\"", "2015-09-12T00:46:58"),
            // Zones.
            ("\"2015-09-12T00:46:58+02:00\"", "2015-09-11T22:46:58"),
            ("\"2015-09-12T00:46:58-0930\"", "2015-09-12T10:16:58"),
            ("\"2015-09-12 00:46:58+00\"", "2015-09-12T00:46:58"),
            ("\"2015-09-12 00:46:58.5-07\"", "2015-09-12T07:46:58.500"),
            ("\"2015-09-12T00:46:58+00:00\"", "2015-09-12T00:46:58"),
            // Fractions: what is below a microsecond is cut towards the past.
            ("\"2015-09-12T00:46:58.1Z\"", "2015-09-12T00:46:58.100"),
            ("\"2015-09-12T00:46:58,25Z\"", "2015-09-12T00:46:58.250"),
            ("\"2015-09-12T00:46:58.123456Z\"", "2015-09-12T00:46:58.123456"),
            ("\"2015-09-12T00:46:58.1234569Z\"", "2015-09-12T00:46:58.123456"),
            ("\"2015-09-12T00:46:58.999999999999Z\"", "2015-09-12T00:46:58.999999"),
            // Before 1970 the past lies in the same direction.
            ("\"1969-12-31T23:59:59.9999999Z\"", "1969-12-31T23:59:59.999999"),
            ("\"1969-12-31T23:59:59.0000001Z\"", "1969-12-31T23:59:59"),
            ("\"1970-01-01T00:00:00+00:01\"", "1969-12-31T23:59:00"),
            ("\"1900-02-28T23:59:59Z\"", "1900-02-28T23:59:59"),
            ("\"2000-02-29T12:00:00Z\"", "2000-02-29T12:00:00"),
            ("\"0001-01-01T00:00:00Z\"", "0001-01-01T00:00:00"),
            ("\"9999-12-31T23:59:59.999999Z\"", "9999-12-31T23:59:59.999999"),
            // No timestamps.
            ("\"\"", "!"),
            ("\"soon\"", "!"),
            ("\"2015-09-12\"", "!"),
            ("\"2015-09-12T\"", "!"),
            ("\"2015-09-12_00:46:58\"", "!"),
            ("\"2015-09-12T00\"", "!"),
            ("\"2015-09-12T00:46:58.\"", "!"),
            ("\"2015-09-12T00:46:58 Z\"", "!"),
            ("\" 2015-09-12T00:46:58Z\"", "!"),
            ("\"2015-09-12T00:46:58Z \"", "!"),
            ("\"2015-09-12T00:46:58+1\"", "!"),
            ("\"2015-09-12T00:46:58+24:00\"", "!"),
            ("\"2015-09-12T00:46:58+01:60\"", "!"),
            ("\"2015-02-29T00:00:00Z\"", "!"),
            ("\"1900-02-29T00:00:00Z\"", "!"),
            ("\"2015-13-01T00:00:00Z\"", "!"),
            ("\"2015-00-01T00:00:00Z\"", "!"),
            ("\"2015-09-12T24:00:00Z\"", "!"),
            ("\"2015-09-12T23:60:00Z\"", "!"),
            ("\"2015-09-12T23:59:60Z\"", "!"),
            ("\"1442018818\"", "!"),
            ("\"2015-09-12T00:46:5é\"", "!"),
            ("\"ééééé\"", "!"),
            // Numbers only with a timestamp_unit.
            ("1442018818", "!"),
            ("0", "!"),
            ("true", "!"),
        ],
    );
}

#[test]
fn numbers_in_quotes_are_numbers_unless_the_source_says_otherwise() {
    let refused = ", quoted_numbers = 'false'";
    for ty in ["INT", "BIGINT", "DOUBLE", "DECIMAL(10,2)"] {
        check_with(ty, refused, &[("\"1\"", "!"), ("\"1.50\"", "!")]);
        check_with(ty, ", quoted_numbers = 'true'", &[("\"x\"", "!"), ("\"\"", "!"), ("null", "NULL")]);
    }
    // A string is not a boolean or a time.
    check_with("BOOLEAN", "", &[("\"true\"", "!"), ("\"1\"", "!")]);
    check_with("TIMESTAMP", ", timestamp_unit = 's'", &[("\"1442018818\"", "!")]);
    check_with("TEXT", "", &[("\"1\"", "1")]);
}

#[test]
fn an_automatic_unit_goes_by_the_size() {
    check_with(
        "TIMESTAMP",
        ", timestamp_unit = 'auto'",
        &[
            // As Python's time.time(), JavaScript's Date.now(), and micro- and nanoseconds have it.
            ("1442018818.771", "2015-09-12T00:46:58.771"),
            ("1442018818771", "2015-09-12T00:46:58.771"),
            ("1442018818771000", "2015-09-12T00:46:58.771"),
            ("1442018818771000000", "2015-09-12T00:46:58.771"),
            ("0", "1970-01-01T00:00:00"),
            ("-1.5", "1969-12-31T23:59:58.500"),
            // The bounds.
            ("99999999999", "5138-11-16T09:46:39"),
            ("99999999999.9", "5138-11-16T09:46:39.900"),
            ("100000000000", "1973-03-03T09:46:40"),
            ("-100000000000", "1966-10-31T14:13:20"),
            ("99999999999999", "5138-11-16T09:46:39.999"),
            ("1e14", "1973-03-03T09:46:40"),
            ("99999999999999999", "5138-11-16T09:46:39.999999"),
            ("1e17", "1973-03-03T09:46:40"),
            ("1e30", "!"),
            ("\"2015-09-12T00:46:58Z\"", "2015-09-12T00:46:58"),
        ],
    );
}

#[test]
fn numbers_are_timestamps_in_the_declared_unit() {
    let unit = |unit: &str| format!(", timestamp_unit = '{unit}'");
    for (name, whole, half) in [
        ("s", "1442018818", "1442018818.771"),
        ("ms", "1442018818000", "1442018818771"),
        ("us", "1442018818000000", "1442018818771000"),
        ("ns", "1442018818000000000", "1442018818771000000"),
    ] {
        check_with(
            "TIMESTAMP",
            &unit(name),
            &[
                (whole, "2015-09-12T00:46:58"),
                (&format!("{whole}.0"), "2015-09-12T00:46:58"),
                (half, "2015-09-12T00:46:58.771"),
                ("0", "1970-01-01T00:00:00"),
                ("-0.0", "1970-01-01T00:00:00"),
                ("null", "NULL"),
                // Texts are read as ever; digits in a text are no number.
                ("\"2015-09-12T00:46:58Z\"", "2015-09-12T00:46:58"),
                ("\"1442018818\"", "!"),
                ("true", "!"),
                ("1e30", "!"),
                ("-1e30", "!"),
                ("123456789012345678901234567890123456789012345", "!"),
                ("1.00000000000000000000000000000000000000001e44", "!"),
            ],
        );
    }
    check_with(
        "TIMESTAMP",
        &unit("s"),
        &[
            ("1.5", "1970-01-01T00:00:01.500"),
            ("15e-1", "1970-01-01T00:00:01.500"),
            ("0.123456", "1970-01-01T00:00:00.123456"),
            ("0.1234569", "1970-01-01T00:00:00.123456"),
            ("-1", "1969-12-31T23:59:59"),
            ("-0.0000001", "1969-12-31T23:59:59.999999"),
            ("-1.5", "1969-12-31T23:59:58.500"),
            ("-1e-400", "1969-12-31T23:59:59.999999"),
            ("1e-400", "1970-01-01T00:00:00"),
            ("1.00000000000000000000000000000000000000000000001", "1970-01-01T00:00:01"),
            ("-1.00000000000000000000000000000000000000000000001", "1969-12-31T23:59:58.999999"),
        ],
    );
    check_with(
        "TIMESTAMP",
        &unit("ms"),
        &[
            ("1.5", "1970-01-01T00:00:00.001500"),
            ("1.0009999", "1970-01-01T00:00:00.001"),
            ("-0.0001", "1969-12-31T23:59:59.999999"),
            ("1.4420188187e12", "2015-09-12T00:46:58.700"),
        ],
    );
    check_with(
        "TIMESTAMP",
        &unit("us"),
        &[("1.9", "1970-01-01T00:00:00.000001"), ("-1.1", "1969-12-31T23:59:59.999998")],
    );
    check_with(
        "TIMESTAMP",
        &unit("ns"),
        &[
            ("1999", "1970-01-01T00:00:00.000001"),
            ("-1", "1969-12-31T23:59:59.999999"),
            ("-1000", "1969-12-31T23:59:59.999999"),
            ("0.5", "1970-01-01T00:00:00"),
        ],
    );
    // The unit holds wherever a timestamp stands.
    check_with("STRUCT<at TIMESTAMP>", &unit("s"), &[("{\"at\":1.5}", "{at: 1970-01-01T00:00:01.500}")]);
    check_with(
        "TIMESTAMP[]",
        &unit("ms"),
        &[("[1000,\"1970-01-01T00:00:02Z\",null]", "[1970-01-01T00:00:01, 1970-01-01T00:00:02, NULL]")],
    );
}

#[test]
fn objects_go_into_structs() {
    check(
        "STRUCT<a INT, \"B\" TEXT, c STRUCT<d DECIMAL(3,1), e INT[]>>",
        &[
            ("{}", "{a: NULL, B: NULL, c: NULL}"),
            ("{\"a\":1}", "{a: 1, B: NULL, c: NULL}"),
            ("{\"B\":\"x\",\"a\":1.0}", "{a: 1, B: x, c: NULL}"),
            ("{\"b\":\"x\",\"A\":\"y\",\"z\":{\"a\":[]}}", "{a: NULL, B: NULL, c: NULL}"),
            ("{\"c\":{\"d\":1.5,\"e\":[1,null],\"x\":0}}", "{a: NULL, B: NULL, c: {d: 1.5, e: [1, NULL]}}"),
            ("{\"c\":{\"e\":[]}}", "{a: NULL, B: NULL, c: {d: NULL, e: []}}"),
            ("{\"a\":\"x\"}", "!"),
            ("{\"c\":{\"d\":1.55}}", "!"),
            ("{\"c\":{\"e\":[1,\"x\"]}}", "!"),
            ("{\"c\":[]}", "!"),
            ("[]", "!"),
            ("\"{}\"", "!"),
            ("1", "!"),
        ],
    );
}

#[test]
fn arrays_go_into_lists() {
    check(
        "BIGINT[]",
        &[
            ("[]", "[]"),
            ("[1,2.0,1e1]", "[1, 2, 10]"),
            ("[null,1]", "[NULL, 1]"),
            ("[1.5]", "!"),
            ("[\"1\"]", "[1]"),
            ("[\"x\"]", "!"),
            ("{}", "!"),
            ("1", "!"),
            ("\"[]\"", "!"),
        ],
    );
    check("TEXT[][]", &[("[[\"a\"],[],null]", "[[a], [], NULL]"), ("[[\"a\",1]]", "!"), ("[\"a\"]", "!")]);
    check("STRUCT<a INT>[]", &[("[{\"a\":1},{},null]", "[{a: 1}, {a: NULL}, NULL]"), ("[{\"a\":[]}]", "!")]);
}

#[test]
fn json_holds_any_value_as_its_own_text() {
    check(
        "JSON",
        &[
            ("{\"a\":[1,2]}", "{\"a\":[1,2]}"),
            ("[]", "[]"),
            ("{ \"b\" : 1.00 , \"a\" : \"\\u00e9\" }", "{ \"b\" : 1.00 , \"a\" : \"\\u00e9\" }"),
            ("\"x\"", "\"x\""),
            ("1e999", "1e999"),
            ("true", "true"),
        ],
    );
}

/// A number `digits × 10^power`, written with its point `shift` places further left and an exponent that makes it good.
fn written(digits: i128, power: i64, shift: usize, zeros: usize, upper: bool) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let mut text = digits.unsigned_abs().to_string();
    if text.len() <= shift {
        text.insert_str(0, &"0".repeat(shift + 1 - text.len()));
    }
    let point = text.len() - shift;
    let (whole, fraction) = text.split_at(point);
    let fraction = format!("{fraction}{}", "0".repeat(zeros));
    let fraction = if fraction.is_empty() { fraction } else { format!(".{fraction}") };
    let exponent = power + shift as i64;
    let letter = if upper { 'E' } else { 'e' };
    match (exponent, upper) {
        (0, false) => format!("{sign}{whole}{fraction}"),
        (0, true) => format!("{sign}{whole}{fraction}E-0"),
        (e, true) if e > 0 => format!("{sign}{whole}{fraction}{letter}+{e}"),
        (e, _) => format!("{sign}{whole}{fraction}{letter}{e}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A number means the same however it is written.
    #[test]
    fn a_number_is_its_value(digits: i64, power in -25i64..25, shift in 0usize..40, zeros in 0usize..45, upper: bool) {
        let json = written(digits.into(), power, shift, zeros, upper);
        let factor = 10i128.checked_pow(power.unsigned_abs() as u32).expect("10^25 fits");
        let digits = i128::from(digits);
        let whole = match power {
            0.. => digits.checked_mul(factor),
            _ => (digits % factor == 0).then_some(digits / factor),
        };
        let bigint = whole.and_then(|n| i64::try_from(n).ok()).map_or("!".to_string(), |n| n.to_string());
        prop_assert_eq!(value(&source("v BIGINT", ""), &json), bigint, "{}", json);
        let int = whole.and_then(|n| i32::try_from(n).ok()).map_or("!".to_string(), |n| n.to_string());
        prop_assert_eq!(value(&source("v INT", ""), &json), int, "{}", json);
        let double: f64 = json.parse().expect("Rust reads JSON's numbers");
        prop_assert_eq!(value(&source("v DOUBLE", ""), &json).parse::<f64>().ok(), Some(double), "{}", json);
    }

    #[test]
    fn a_decimal_is_its_digits(digits: i64, power in -25i64..25, shift in 0usize..40, zeros in 0usize..45) {
        let json = written(digits.into(), power, shift, zeros, false);
        // Of DECIMAL(30,10): the unscaled value, if no digit is lost.
        let scaled = power + 10;
        let factor = 10i128.checked_pow(scaled.unsigned_abs() as u32).expect("10^35 fits");
        let digits = i128::from(digits);
        let unscaled = match scaled {
            0.. => digits.checked_mul(factor),
            _ => (digits % factor == 0).then_some(digits / factor),
        };
        let unscaled = unscaled.filter(|n| n.unsigned_abs() < 10u128.pow(30));
        let expected = unscaled.map_or("!".to_string(), |n| {
            let (whole, fraction) = (n.unsigned_abs() / 10u128.pow(10), n.unsigned_abs() % 10u128.pow(10));
            format!("{}{whole}.{fraction:010}", if n < 0 { "-" } else { "" })
        });
        prop_assert_eq!(value(&source("v DECIMAL(30,10)", ""), &json), expected, "{}", json);
    }

    #[test]
    fn a_number_of_a_unit_is_cut_towards_the_past(digits: i64, power in -25i64..10, shift in 0usize..40, unit in 0usize..4) {
        let (name, to_micros) = [("s", 6), ("ms", 3), ("us", 0), ("ns", -3)][unit];
        let json = written(digits.into(), power, shift, 0, false);
        let scaled = power + to_micros;
        let factor = 10i128.checked_pow(scaled.unsigned_abs() as u32).expect("10^28 fits");
        let micros = match scaled {
            0.. => i128::from(digits).checked_mul(factor),
            _ => Some(i128::from(digits).div_euclid(factor)),
        };
        let source = source("v TIMESTAMP, WATERMARK FOR v AS v", &format!(", timestamp_unit = '{name}'"));
        let mut decoder = bifold_fold::Decoder::new(source, |_| false);
        let text = format!("{{\"v\":{json}}}");
        let mut dead = vec![];
        decoder.push(record(text.as_bytes()), &mut dead);
        prop_assert_eq!(decoder.take_newest(), micros.and_then(|n| i64::try_from(n).ok()), "{} {}", json, name);
    }

    /// The instant of a text, by chrono.
    #[test]
    fn a_timestamp_is_its_instant(seconds in -62_135_596_800i64..253_402_300_800, nanos in 0u32..1_000_000_000, zone in -1439i32..1440) {
        let offset = chrono::FixedOffset::east_opt(zone * 60).expect("less than a day");
        let utc = chrono::DateTime::from_timestamp(seconds, nanos).expect("years 1 to 9999");
        let local = utc.with_timezone(&offset);
        prop_assume!((0..=9999).contains(&chrono::Datelike::year(&local)));
        let micros = bifold_fold::decode::parse_timestamp(&local.to_rfc3339_opts(chrono::SecondsFormat::Nanos, false));
        prop_assert_eq!(micros, Some(seconds * 1_000_000 + i64::from(nanos / 1_000)), "{}", local);
    }
}
