//! JSON numbers, exactly: from their digits, never through a float unless a float is wanted.

/// The text of a valid JSON number.
pub(super) struct Number<'a> {
    text: &'a [u8],
}

/// A number as `±mantissa × 10^exponent`, without trailing zeros in the mantissa.
struct Parts {
    negative: bool,
    mantissa: u128,
    exponent: i64,
    /// Whether digits that are not zero were cut off the mantissa's end.
    cut: bool,
}

/// Digits that a `u128` always holds.
const MOST_DIGITS: usize = 38;

impl<'a> Number<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text }
    }

    /// A text that is one JSON number, and nothing else.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let digits = |text: &mut &'a [u8]| {
            let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            *text = &text[count..];
            count
        };
        let mut rest = text.as_bytes();
        rest = rest.strip_prefix(b"-").unwrap_or(rest);
        let begins_with_zero = rest.first() == Some(&b'0');
        let whole = digits(&mut rest);
        if whole == 0 || begins_with_zero && whole > 1 {
            return None;
        }
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = fraction;
            (digits(&mut rest) > 0).then_some(())?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            rest = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
            (digits(&mut rest) > 0).then_some(())?;
        }
        rest.is_empty().then_some(Self { text: text.as_bytes() })
    }

    /// How many digits stand before the point. Below 1 it is 0 or less.
    pub(super) fn order(&self) -> i64 {
        let parts = self.parts();
        let digits = parts.mantissa.checked_ilog10().map_or(0, |log| i64::from(log) + 1);
        if digits == 0 { 0 } else { digits + parts.exponent }
    }

    /// The number, if it is integral and fits 64 bits.
    pub(super) fn integer(&self) -> Option<i64> {
        // The usual case: few digits and nothing else.
        let (negative, digits) = match self.text {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
            let value = digits.iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
            return Some(if negative { -value } else { value });
        }
        i64::try_from(self.parts().scaled(0)?).ok()
    }

    /// As it was written.
    pub(super) fn text(&self) -> &'a str {
        std::str::from_utf8(self.text).expect("a JSON number is ASCII")
    }

    /// The nearest double, if the number is in range.
    pub(super) fn double(&self) -> Option<f64> {
        self.text().parse::<f64>().ok().filter(|value| value.is_finite())
    }

    /// The unscaled value of a `DECIMAL(precision, scale)`, if no digit is lost and it fits.
    pub(super) fn decimal(&self, precision: u8, scale: i8) -> Option<i128> {
        let unscaled = self.parts().scaled(i64::from(scale))?;
        let limit = 10u128.checked_pow(u32::from(precision))?;
        (unscaled.unsigned_abs() < limit).then_some(unscaled)
    }

    /// The number times `10^power`, cut towards the past, if it fits 64 bits.
    pub(super) fn floor_at(&self, power: i64) -> Option<i64> {
        let parts = self.parts();
        if parts.mantissa == 0 {
            return Some(0);
        }
        let exponent = parts.exponent + power;
        let power_of_ten = u32::try_from(exponent.unsigned_abs()).ok().and_then(|digits| 10u128.checked_pow(digits));
        // Digits that were cut off are 38 places and more below the first one: of what fits 64 bits, below the unit.
        let (whole, rest) = match power_of_ten {
            Some(power) if exponent >= 0 => (parts.mantissa.checked_mul(power)?, parts.cut),
            Some(power) => (parts.mantissa / power, !parts.mantissa.is_multiple_of(power) || parts.cut),
            None if exponent >= 0 => return None,
            None => (0, true),
        };
        let whole = i128::try_from(whole).ok()?;
        i64::try_from(if parts.negative { -whole - i128::from(rest) } else { whole }).ok()
    }

    fn parts(&self) -> Parts {
        let (mut mantissa, mut exponent, mut digits, mut cut) = (0u128, 0i64, 0usize, false);
        let (mut point, mut negative) = (false, false);
        // Zeros are held back until a digit follows them, so that trailing ones never count.
        let mut zeros = 0i64;
        let mut rest = self.text;
        while let [byte, after @ ..] = rest {
            match byte {
                b'-' => negative = true,
                b'.' => point = true,
                b'e' | b'E' => break,
                b'0' => {
                    zeros += i64::from(mantissa > 0);
                    exponent -= i64::from(point);
                }
                digit => {
                    let room = digits + (zeros as usize) < MOST_DIGITS;
                    if room {
                        for _ in 0..=zeros {
                            mantissa *= 10;
                        }
                        mantissa += u128::from(digit - b'0');
                        digits += zeros as usize + 1;
                        zeros = 0;
                    } else {
                        cut = true;
                        zeros += 1;
                    }
                    exponent -= i64::from(point);
                }
            }
            rest = after;
        }
        if let [_, sign_and_digits @ ..] = rest {
            exponent = exponent.saturating_add(read_exponent(sign_and_digits));
        }
        Parts { negative, mantissa, exponent: exponent.saturating_add(zeros), cut }
    }
}

/// The number after `e`, held within what cannot matter any more: no record has as many digits.
fn read_exponent(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let value = digits.fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1_000_000_000_000));
    if text.first() == Some(&b'-') { -value } else { value }
}

impl Parts {
    /// The number times `10^power`, if that is integral and fits.
    fn scaled(&self, power: i64) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let exponent = u32::try_from(self.exponent + power).ok()?;
        if self.cut {
            return None;
        }
        let value = i128::try_from(self.mantissa.checked_mul(10u128.checked_pow(exponent)?)?).ok()?;
        Some(if self.negative { -value } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        Number::new(text.as_bytes())
    }

    #[test]
    fn integral_numbers_are_integers_however_they_are_written() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("1.0", Some(1)),
            ("1e3", Some(1000)),
            ("1200e-2", Some(12)),
            ("12.50e1", Some(125)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("9223372036854775807.5", None),
            ("0.1", None),
            ("1e400", None),
            ("0e400", Some(0)),
            ("1e-400", None),
            ("10000000000000000000000000000000000000000000000e-46", Some(1)),
            ("1.000000000000000000000000000000000000000000001", None),
        ] {
            assert_eq!(number(text).integer(), value, "{text}");
        }
    }

    #[test]
    fn decimals_come_from_their_digits() {
        for (text, value) in [
            ("12.34", Some(1234)),
            ("12.3", Some(1230)),
            ("12.340", Some(1234)),
            ("12.345", None),
            ("-0.01", Some(-1)),
            ("1e2", Some(10000)),
            ("99999999.99", Some(9999999999)),
            ("100000000", None),
            ("0.1", Some(10)),
        ] {
            assert_eq!(number(text).decimal(10, 2), value, "{text}");
        }
        assert_eq!(number("99999999999999999999999999999999999999").decimal(38, 0), Some(10i128.pow(38) - 1));
        assert_eq!(number("100000000000000000000000000000000000000").decimal(38, 0), None);
    }

    #[test]
    fn times_are_cut_towards_the_past() {
        for (text, power, value) in [
            ("1.5", 6, Some(1_500_000)),
            ("1.0000009", 6, Some(1_000_000)),
            ("-1.0000001", 6, Some(-1_000_001)),
            ("1999", -3, Some(1)),
            ("-1", -3, Some(-1)),
            ("-2000", -3, Some(-2)),
            ("1e18", 6, None),
            ("1e-60", 6, Some(0)),
            ("-1e-60", 6, Some(-1)),
            ("123456789012345678901234567890123456789012", 6, None),
            ("1.00000000000000000000000000000000000000001e40", 6, None),
            ("1.00000000000000000000000000000000000000001", 6, Some(1_000_000)),
            ("-1.00000000000000000000000000000000000000001", 6, Some(-1_000_001)),
            ("1e4000000000000000000000", 0, None),
            ("-1e-4000000000000000000000", 0, Some(-1)),
        ] {
            assert_eq!(number(text).floor_at(power), value, "{text}");
        }
    }

    #[test]
    fn the_order_of_a_number_is_its_digits_before_the_point() {
        for (text, digits) in [
            ("0", 0),
            ("7", 1),
            ("-99999999999.9", 11),
            ("1e11", 12),
            ("0.5e3", 3),
            ("0.05", -1),
            ("100000000000000000000", 21),
        ] {
            assert_eq!(number(text).order(), digits, "{text}");
        }
    }

    #[test]
    fn only_a_json_number_is_one() {
        for text in ["0", "-0", "7", "12.50", "-3", "1e3", "1E+3", "0.1e-7"] {
            assert!(Number::parse(text).is_some(), "{text}");
        }
        for text in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1e", "1e+", "NaN", "Infinity", "0x1", "1,5", " 1", "1 ", "1_000",
            "１",
        ] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn doubles_are_in_range() {
        assert_eq!(number("0.1").double(), Some(0.1));
        assert_eq!(number("1e999").double(), None);
    }
}
