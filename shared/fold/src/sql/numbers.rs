//! A number in SQL is an exact decimal, as in PostgreSQL; one that no decimal holds is the nearest double.

use datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value};

/// Digits that a decimal has at most.
const MOST_DIGITS: i64 = 76;

/// Makes a number beyond decimals a double.
pub(super) fn correct(expr: &mut Expr) {
    let Expr::Value(value) = expr else { return };
    let Value::Number(text, _) = &value.value else { return };
    if is_decimal(text) {
        return;
    }
    let text = Expr::Value(Value::SingleQuotedString(text.replace('_', "")).into());
    let data_type = DataType::Double(ExactNumberInfo::None);
    *expr = Expr::Cast { kind: CastKind::Cast, expr: Box::new(text), data_type, array: false, format: None };
}

/// Whether a decimal of at most 76 digits holds a number, all digits before the point and behind it counted.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.trim_start_matches('+').parse::<i64>() else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count() as i64;
    let (before, behind) = (digits(whole) + exponent, digits(fraction) - exponent);
    before.max(0) + behind.max(0) <= MOST_DIGITS
}

#[cfg(test)]
mod tests {
    use super::is_decimal;

    #[test]
    fn numbers_of_up_to_76_digits_are_decimals() {
        for text in ["1.5", "0.1", "1e23", "1E-40", "1e75", "9_000.5", ".5", "123456789012345678901234567890.123456789"]
        {
            assert!(is_decimal(text), "{text}");
        }
        for text in ["1e76", "1e300", "1e-77", "1e999999999999999999999"] {
            assert!(!is_decimal(text), "{text}");
        }
    }
}
