//! Types of numbers, and types that hold several.

use arrow::datatypes::{DataType, i256};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, Operator, cast};

/// Digits that a 64-bit integer needs.
const INTEGER_DIGITS: i16 = 20;
/// Digits that fit 128 and 256 bits.
const DIGITS_128: i16 = 38;
const DIGITS_256: i16 = 76;
/// Integers up to this are doubles, too.
const DOUBLE_INTEGERS: i64 = 1 << 53;

/// An exact number's digits before and behind the point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Digits {
    pub(crate) before: i16,
    pub(crate) behind: i16,
}

impl Digits {
    /// The digits of an exact type; none of other types.
    pub(crate) fn of_type(ty: &DataType) -> Option<Self> {
        let digits = |precision: u8, scale: i8| {
            let (precision, scale) = (i16::from(precision), i16::from(scale));
            Digits { before: (precision - scale).max(0), behind: scale.max(0) }
        };
        match ty {
            DataType::Int8 | DataType::UInt8 => Some(Digits { before: 3, behind: 0 }),
            DataType::Int16 | DataType::UInt16 => Some(Digits { before: 5, behind: 0 }),
            DataType::Int32 | DataType::UInt32 => Some(Digits { before: 10, behind: 0 }),
            DataType::Int64 | DataType::UInt64 => Some(Digits { before: INTEGER_DIGITS, behind: 0 }),
            DataType::Decimal32(p, s)
            | DataType::Decimal64(p, s)
            | DataType::Decimal128(p, s)
            | DataType::Decimal256(p, s) => Some(digits(*p, *s)),
            _ => None,
        }
    }

    /// The digits that an expression needs: of a constant integer those that it has.
    pub(crate) fn of(expr: &Expr, ty: &DataType) -> Option<Self> {
        match expr {
            Expr::Literal(value, _) if ty.is_integer() => match integer(value) {
                Some(value) => Some(Digits { before: digits_of(value), behind: 0 }),
                None => Self::of_type(ty),
            },
            _ => Self::of_type(ty),
        }
    }

    /// The digits that hold numbers of both.
    pub(crate) fn with(self, other: Self) -> Self {
        Digits { before: self.before.max(other.before), behind: self.behind.max(other.behind) }
    }

    /// The decimal of these digits; none beyond 76.
    pub(crate) fn decimal(self) -> Option<DataType> {
        let precision = (self.before + self.behind).max(1);
        let (wide, scale) = (u8::try_from(precision).ok()?, i8::try_from(self.behind).ok()?);
        match precision {
            _ if precision <= DIGITS_128 => Some(DataType::Decimal128(wide, scale)),
            _ if precision <= DIGITS_256 => Some(DataType::Decimal256(wide, scale)),
            _ => None,
        }
    }

    /// Whether numbers of `other` have no more digits.
    pub(crate) fn hold(self, other: Self) -> bool {
        self.before >= other.before && self.behind >= other.behind
    }
}

fn digits_of(value: i128) -> i16 {
    i16::try_from(value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1).unwrap_or(DIGITS_128)
}

/// The value of a constant integer.
fn integer(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Int8(value) => value.map(i128::from),
        ScalarValue::Int16(value) => value.map(i128::from),
        ScalarValue::Int32(value) => value.map(i128::from),
        ScalarValue::Int64(value) => value.map(i128::from),
        ScalarValue::UInt8(value) => value.map(i128::from),
        ScalarValue::UInt16(value) => value.map(i128::from),
        ScalarValue::UInt32(value) => value.map(i128::from),
        ScalarValue::UInt64(value) => value.map(i128::from),
        _ => None,
    }
}

/// A constant exact number as a double that stands for the same: a decimal as the nearest, as PostgreSQL reads it beside a
/// double; an integer only where a double is exactly it.
pub(crate) fn as_double(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(value, _) = expr else { return None };
    let double = match value {
        ScalarValue::Decimal128(Some(_), ..) | ScalarValue::Decimal256(Some(_), ..) => {
            Some(decimal_text(value)?.parse::<f64>().ok()?)
        }
        ScalarValue::Decimal128(None, ..) | ScalarValue::Decimal256(None, ..) => None,
        value => {
            let value = integer(value)?;
            (value.unsigned_abs() <= u128::from(DOUBLE_INTEGERS.unsigned_abs())).then_some(())?;
            Some(value as f64)
        }
    };
    Some(Expr::Literal(ScalarValue::Float64(double), None))
}

/// A constant decimal as text: digits and an exponent.
fn decimal_text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Decimal128(Some(value), _, scale) => Some(format!("{value}e{}", -i16::from(*scale))),
        ScalarValue::Decimal256(Some(value), _, scale) => Some(format!("{value}e{}", -i16::from(*scale))),
        _ => None,
    }
}

/// A text constant that is compared with a number, as the number that it is.
///
/// # Errors
/// The text is not a number.
pub(crate) fn of_text(text: &str, beside: &DataType) -> Result<Expr> {
    let trimmed = text.trim();
    let literal = |value| Ok(Expr::Literal(value, None));
    if beside.is_floating()
        && let Ok(double) = trimmed.parse::<f64>()
    {
        return literal(ScalarValue::Float64(Some(double)));
    }
    if let Ok(integer) = trimmed.parse::<i64>() {
        return literal(ScalarValue::Int64(Some(integer)));
    }
    match decimal(trimmed) {
        Some(value) => literal(value),
        None => plan_err!("{text:?} is compared with a number, and is not one"),
    }
}

/// A decimal of digits alone, with a sign and a point at most.
fn decimal(text: &str) -> Option<ScalarValue> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > DIGITS_256 as usize || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    let value = i256::from_string(&format!("{sign}{digits}"))?;
    let (precision, scale) = (u8::try_from(digits.len()).ok()?, i8::try_from(fraction.len()).ok()?);
    Some(match value.to_i128().filter(|_| i16::from(precision) <= DIGITS_128) {
        Some(value) => ScalarValue::Decimal128(Some(value), precision, scale),
        None => ScalarValue::Decimal256(Some(value), precision, scale),
    })
}

/// `expr` as `to`, which holds all that its type does.
pub(crate) fn widened(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to {
        return expr;
    }
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(value) = value.cast_to(to)
        && !value.is_null()
    {
        return Expr::Literal(value, metadata.clone());
    }
    cast(expr, to.clone())
}

/// Whether an operator computes a number.
pub(crate) fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Whether values of two types are equal in the type in which DataFusion compares them just where they are equal: where it does not go
/// through `exact::coerce`, as for the columns of `IN (SELECT …)`, UNION and JOIN … USING.
pub fn meet_exactly(these: &DataType, those: &DataType) -> bool {
    if these == those || !these.is_numeric() || !those.is_numeric() {
        return true;
    }
    match (Digits::of_type(these), Digits::of_type(those)) {
        (Some(these), Some(those)) => {
            let both = these.with(those);
            both.before + both.behind <= DIGITS_128
        }
        (Some(exact), None) | (None, Some(exact)) => exact.behind == 0 && exact.before <= 10,
        (None, None) => true,
    }
}
