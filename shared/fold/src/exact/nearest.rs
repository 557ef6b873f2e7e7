//! Decimals as doubles. Arrow divides the digits, as a double, by the power of ten: of more than 53 bits that rounds twice, and gives the
//! neighbour of the nearest double.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type};

/// The nearest doubles of an array of decimals. None of any other array.
pub(crate) fn doubles(array: &ArrayRef) -> Option<ArrayRef> {
    let made: Float64Array = match array.data_type() {
        DataType::Decimal128(_, scale) => array
            .as_primitive::<Decimal128Type>()
            .iter()
            .map(|value| value.map(|value| nearest(value, *scale)))
            .collect(),
        DataType::Decimal256(_, scale) => {
            let parsed = |value: arrow::datatypes::i256| match value.to_i128() {
                Some(value) => nearest(value, *scale),
                None => parsed(&value.to_string(), *scale),
            };
            array.as_primitive::<Decimal256Type>().iter().map(|value| value.map(parsed)).collect()
        }
        _ => return None,
    };
    Some(Arc::new(made))
}

fn nearest(value: i128, scale: i8) -> f64 {
    // Both are doubles without rounding, so the quotient is rounded once.
    if value.unsigned_abs() < 1 << 53 && (0..=22).contains(&scale) {
        return value as f64 / 10f64.powi(i32::from(scale));
    }
    parsed(&value.to_string(), scale)
}

fn parsed(digits: &str, scale: i8) -> f64 {
    format!("{digits}e{}", -i32::from(scale)).parse().expect("digits and an exponent are a number")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_decimal_is_the_nearest_double() {
        assert_eq!(nearest(-21_474_836_457_852_521_472, 2), -214_748_364_578_525_214.72);
        assert_eq!(nearest(9_007_199_254_740_993, 0), 9_007_199_254_740_992.0);
        assert_eq!(nearest(123_456_789_012_345_678_901_234_567_890, 11), 1_234_567_890_123_456_789.012_345_678_90);
        assert_eq!(nearest(1, 1), 0.1);
        assert_eq!(nearest(-5, -2), -500.0);
    }
}
