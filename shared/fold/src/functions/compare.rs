//! Compares numbers of any two types exactly: which of them is greater, not what becomes of them in one type.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal256Type, Float64Type, i256};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use num_bigint::{BigInt, Sign};

use crate::exact::numbers::Digits;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Compare(Signature);

/// -1, 0 or 1: how two numbers compare. NULL where one of them is. NaN is greater than all others and equals itself.
pub(crate) fn order(left: Expr, right: Expr) -> Expr {
    let function = ScalarUDF::from(Compare(Signature::any(2, Volatility::Immutable)));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![left, right]))
}

/// Whether a function is this one.
pub(crate) fn is_compare(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Compare>().is_some()
}

/// Numbers of one type.
enum Numbers {
    Doubles(ArrayRef),
    /// In 256 bits, with so many digits behind the point.
    Exact(ArrayRef, i8),
}

#[derive(Clone, Copy)]
enum Number {
    Double(f64),
    Exact(i256, i8),
}

impl Numbers {
    fn of(array: &ArrayRef) -> Result<Self> {
        let ty = array.data_type();
        if ty.is_floating() {
            return Ok(Self::Doubles(cast(array, &DataType::Float64)?));
        }
        match (Digits::of_type(ty), ty) {
            (_, DataType::Decimal256(_, scale)) => Ok(Self::Exact(Arc::clone(array), *scale)),
            (Some(digits), _) => {
                let scale = i8::try_from(digits.behind).unwrap_or(i8::MAX);
                Ok(Self::Exact(cast(array, &DataType::Decimal256(76, scale))?, scale))
            }
            (None, ty) => internal_err!("{ty} is not a number"),
        }
    }

    fn get(&self, row: usize) -> Option<Number> {
        match self {
            Self::Doubles(array) => {
                let array = array.as_primitive::<Float64Type>();
                array.is_valid(row).then(|| Number::Double(array.value(row)))
            }
            Self::Exact(array, scale) => {
                let array = array.as_primitive::<Decimal256Type>();
                array.is_valid(row).then(|| Number::Exact(array.value(row), *scale))
            }
        }
    }
}

impl Number {
    fn cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (Number::Double(a), Number::Double(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
            (Number::Exact(a, p), Number::Exact(b, q)) => big(a, q - p.min(q)).cmp(&big(b, p - p.min(q))),
            (Number::Exact(a, scale), Number::Double(b)) => exact_to_double(a, scale, b),
            (Number::Double(a), Number::Exact(b, scale)) => exact_to_double(b, scale, a).reverse(),
        }
    }
}

/// A value times a power of ten.
fn big(value: i256, power: i8) -> BigInt {
    BigInt::from_signed_bytes_le(&value.to_le_bytes()) * BigInt::from(10).pow(power.unsigned_abs().into())
}

/// How `value / 10^scale` compares with a double.
fn exact_to_double(value: i256, scale: i8, double: f64) -> Ordering {
    if double.is_nan() || double == f64::INFINITY {
        return Ordering::Less;
    }
    if double == f64::NEG_INFINITY {
        return Ordering::Greater;
    }
    // A double is an integer times a power of two.
    let bits = double.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, power) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    let sign = if double < 0.0 { Sign::Minus } else { Sign::Plus };
    let mantissa = BigInt::from_biguint(sign, mantissa.into());
    // value / 10^scale against mantissa * 2^power, both times 10^scale, and times 2^-power where that is more.
    let (mut left, mut right) = (big(value, 0), mantissa);
    match scale {
        0.. => right *= BigInt::from(10).pow(scale.unsigned_abs().into()),
        _ => left *= BigInt::from(10).pow(scale.unsigned_abs().into()),
    }
    match power {
        0.. => right <<= power.unsigned_abs(),
        _ => left <<= power.unsigned_abs(),
    }
    left.cmp(&right)
}

impl ScalarUDFImpl for Compare {
    fn name(&self) -> &str {
        "compare"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = &arrays[..] else { return internal_err!("compare takes two numbers") };
        let (left, right) = (Numbers::of(left)?, Numbers::of(right)?);
        let orders: Int8Array =
            (0..arrays[0].len()).map(|row| Some(left.get(row)?.cmp(right.get(row)?) as i8)).collect();
        let orders: ArrayRef = Arc::new(orders);
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&orders, 0)?)),
            false => Ok(ColumnarValue::Array(orders)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::i256;

    use super::Number::{self, Double, Exact};

    fn exact(text: &str, scale: i8) -> Number {
        Exact(i256::from_string(text).expect("digits"), scale)
    }

    #[test]
    fn numbers_compare_by_what_they_are() {
        use std::cmp::Ordering::{Equal, Greater, Less};
        for (left, right, order) in [
            (exact("9007199254740993", 0), Double(9_007_199_254_740_992.0), Greater),
            (exact("9007199254740992", 0), Double(9_007_199_254_740_992.0), Equal),
            // The double nearest to 1e23 is below it.
            (exact("100000000000000000000000", 0), Double(1e23), Greater),
            (exact("1", 1), Double(0.1), Less),
            (exact("5", 1), Double(0.5), Equal),
            (exact("-25", 2), Double(-0.25), Equal),
            (exact("0", 0), Double(-0.0), Equal),
            (exact("0", 0), Double(5e-324), Less),
            (exact("0", 38), Double(-5e-324), Greater),
            (exact("99999999999999999999999999999999999999", 0), Double(f64::MAX), Less),
            (exact("1", 0), Double(f64::NAN), Less),
            (exact("1", 0), Double(f64::INFINITY), Less),
            (exact("1", 0), Double(f64::NEG_INFINITY), Greater),
            (exact("10", 1), exact("1", 0), Equal),
            (exact("1", 38), exact("0", 0), Greater),
        ] {
            assert_eq!(left.cmp(right), order);
            assert_eq!(right.cmp(left), order.reverse());
        }
    }
}
