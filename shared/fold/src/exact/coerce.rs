//! Operands of different types get one that holds both, before DataFusion coerces them.
//!
//! DataFusion takes decimals of 38 digits for the type of any two decimals, doubles for that of an integer and a double, and
//! nanoseconds for that of a time and anything else: values that do not fit become NULL, or are rounded. Here comparisons are
//! exact for every pair of numbers, and `CASE`, `coalesce`, `greatest` and their like give a type that holds all of their
//! values. A constant decimal beside a double is the nearest double, as in PostgreSQL.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::functions::datetime::{to_timestamp_micros, to_timestamp_seconds};
use datafusion::logical_expr::expr::{Case, Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit, when};
use datafusion::optimizer::AnalyzerRule;

use super::numbers::{self, Digits};
use crate::functions::compare;
use crate::rewrite;
use crate::times::{self, TIME, is_text};

/// The rule. It comes before types are coerced, and does nothing to what it has coerced already.
#[derive(Debug)]
pub(crate) struct Coerce;

impl AnalyzerRule for Coerce {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, coerced)
    }

    fn name(&self) -> &str {
        "types that hold both operands"
    }
}

fn coerced(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let compared = times::compared(expr, schema)?;
    let changed = compared.transformed;
    let made = match compared.data {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if times::compares(op) => {
            comparison(*left, op, *right, schema)?
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if numbers::is_arithmetic(op) => {
            arithmetic(*left, op, *right, schema)?
        }
        Expr::Between(between) => between_numbers(between, schema)?,
        Expr::InList(list) => in_list(list, schema)?,
        Expr::Case(case) => chosen_by_case(case, schema)?,
        Expr::ScalarFunction(call) => function(call, schema)?,
        Expr::Cast(Cast { expr, field }) => {
            let made = time_cast(*expr, field.data_type(), schema)?;
            made.map_or_else(|expr| Expr::Cast(Cast { expr: Box::new(expr), field }), |(expr, ty)| cast(expr, ty))
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let made = time_cast(*expr, field.data_type(), schema)?;
            made.map_or_else(
                |expr| Expr::TryCast(TryCast { expr: Box::new(expr), field }),
                |(expr, ty)| Expr::TryCast(TryCast::new(Box::new(expr), ty)),
            )
        }
        Expr::Literal(value, metadata) => match plain(&value) {
            Some(value) => Expr::Literal(value, metadata),
            None => return Ok(Transformed::new_transformed(Expr::Literal(value, metadata), changed)),
        },
        other => return Ok(Transformed::new_transformed(other, changed)),
    };
    Ok(Transformed::yes(made))
}

/// A comparison that is exact.
fn comparison(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
    let (Ok(from), Ok(by)) = (left.get_type(schema), right.get_type(schema)) else {
        return Ok(binary(left, op, right));
    };
    let (left, right) = match (from.is_numeric(), by.is_numeric()) {
        (true, false) if is_text(&right) => (left, number_of(&right, &from)?),
        (false, true) if is_text(&left) => (number_of(&left, &by)?, right),
        _ => (left, right),
    };
    let (from, by) = (left.get_type(schema)?, right.get_type(schema)?);
    if let (DataType::Interval(_), DataType::Interval(_)) = (&from, &by) {
        // DataFusion compares months, days and the rest one by one.
        return Ok(binary(times::span(left)?, op, times::span(right)?));
    }
    if from == by {
        return Ok(binary(left, op, right));
    }
    if from.is_numeric() && by.is_string() || from.is_string() && by.is_numeric() {
        let (these, those) = (shown(&left), shown(&right));
        return plan_err!(
            "{these} and {those} are compared, but one is a number and the other is text: cast one of them"
        );
    }
    if is_moment(&from) && by.is_string() && !is_text(&right) || from.is_string() && !is_text(&left) && is_moment(&by) {
        let (these, those) = (shown(&left), shown(&right));
        return plan_err!(
            "{these} and {those} are compared, but one is a time and the other is text: cast one of them"
        );
    }
    if let (DataType::List(these), DataType::List(those)) = (&from, &by)
        && !numbers::meet_exactly(these.data_type(), those.data_type())
    {
        return plan_err!("lists of numbers of different types are compared: cast one of them");
    }
    if from.is_numeric() && by.is_temporal() || from.is_temporal() && by.is_numeric() {
        let (these, those) = (shown(&left), shown(&right));
        return plan_err!(
            "{these} and {those} are compared, but one is a number and the other is a time: cast one of them"
        );
    }
    if let Some(ty) = common_time(&[&from, &by]) {
        return Ok(binary(as_time(left, &from, &ty), op, as_time(right, &by, &ty)));
    }
    match (Digits::of(&left, &from), Digits::of(&right, &by)) {
        (Some(_), Some(_)) if from.is_integer() && by.is_integer() => Ok(binary(left, op, right)),
        (Some(these), Some(those)) => Ok(match these.with(those).decimal() {
            Some(ty) => binary(numbers::widened(left, &from, &ty), op, numbers::widened(right, &by, &ty)),
            None => compared_exactly(left, op, right),
        }),
        (Some(_), None) if by.is_floating() => Ok(match exact_double(&left, &from) {
            Some(left) => binary(left, op, right),
            None => compared_exactly(left, op, right),
        }),
        (None, Some(_)) if from.is_floating() => Ok(match exact_double(&right, &by) {
            Some(right) => binary(left, op, right),
            None => compared_exactly(left, op, right),
        }),
        _ => Ok(binary(left, op, right)),
    }
}

/// An expression as somebody wrote it.
pub(super) fn shown(expr: &Expr) -> String {
    match expr {
        Expr::Literal(value, _) if value.is_null() => "NULL".to_string(),
        Expr::Literal(value, _) if value.data_type().is_string() => format!("'{value}'"),
        Expr::Literal(value, _) => value.to_string(),
        Expr::Column(column) => column.name.clone(),
        other => other.schema_name().to_string(),
    }
}

fn is_moment(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(..) | DataType::Date32)
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}

/// An exact number as a double, where that loses nothing: integers of up to 32 bits, and constants.
fn exact_double(expr: &Expr, ty: &DataType) -> Option<Expr> {
    let narrow = ty.is_integer() && ty.primitive_width().is_some_and(|bytes| bytes <= 4);
    numbers::as_double(expr).or_else(|| narrow.then(|| cast(expr.clone(), DataType::Float64)))
}

/// A comparison of numbers that no type holds.
fn compared_exactly(left: Expr, op: Operator, right: Expr) -> Expr {
    let none = left.clone().is_null().or(right.clone().is_null());
    let order = |op| binary(compare::order(left.clone(), right.clone()), op, lit(0i8));
    let one_is_null = || binary(left.clone().is_null(), Operator::NotEq, right.clone().is_null());
    match op {
        Operator::IsDistinctFrom => {
            let distinct = when(none, one_is_null()).otherwise(order(Operator::NotEq));
            distinct.unwrap_or_else(|_| order(Operator::NotEq))
        }
        Operator::IsNotDistinctFrom => Expr::Not(Box::new(compared_exactly(left, Operator::IsDistinctFrom, right))),
        op => order(op),
    }
}

fn number_of(text: &Expr, beside: &DataType) -> Result<Expr> {
    match text {
        Expr::Literal(value, _) => numbers::of_text(value.try_as_str().flatten().unwrap_or_default(), beside),
        other => plan_err!("{other} is not a constant"),
    }
}

/// Arithmetic between a double and a constant decimal, which is a double, too; and decimals divided with enough digits.
fn arithmetic(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
    let (Ok(from), Ok(by)) = (left.get_type(schema), right.get_type(schema)) else {
        return Ok(binary(left, op, right));
    };
    let narrow = |ty: &DataType| ty.is_integer() && ty.primitive_width().is_some_and(|bytes| bytes < 8);
    if narrow(&from) && narrow(&by) {
        return Ok(binary(cast(left, DataType::Int64), op, right));
    }
    if from.is_floating() && by.is_decimal() {
        let right = numbers::as_double(&right).unwrap_or(right);
        return Ok(binary(left, op, right));
    }
    if from.is_decimal() && by.is_floating() {
        let left = numbers::as_double(&left).unwrap_or(left);
        return Ok(binary(left, op, right));
    }
    let (Some(these), Some(those)) = (Digits::of_type(&from), Digits::of_type(&by)) else {
        return Ok(binary(left, op, right));
    };
    if !(from.is_decimal() || by.is_decimal()) {
        return Ok(binary(left, op, right));
    }
    if op != Operator::Divide {
        return Ok(match wider(op, these, those) {
            Some([ty, of]) => binary(numbers::widened(left, &from, &ty), op, numbers::widened(right, &by, &of)),
            None => binary(left, op, right),
        });
    }
    // Arrow's quotient has four digits more behind the point than its dividend: too few for 1 / 3.0.
    let dividend = Digits { before: these.before, behind: these.behind.max(those.behind).max(QUOTIENT - 4) };
    let needed = dividend.before + dividend.behind + 4 + those.behind;
    let ty = match dividend.decimal() {
        Some(DataType::Decimal128(p, s)) if needed > 38 => Some(DataType::Decimal256(p, s)),
        ty => ty,
    };
    match ty {
        Some(ty) if needed <= 76 && dividend.behind > these.behind => {
            Ok(binary(numbers::widened(left, &from, &ty), op, right))
        }
        _ => Ok(binary(left, op, right)),
    }
}

/// The types of 256 bits in which the result of decimals of so many digits has a type that it fits; none where that of 128 bits
/// holds it, or no other does. Arrow checks the bits of a result, not its digits.
fn wider(op: Operator, these: Digits, those: Digits) -> Option<[DataType; 2]> {
    let both = these.with(those);
    let digits = match op {
        Operator::Plus | Operator::Minus => both.before + both.behind + 1,
        Operator::Multiply => these.before + these.behind + those.before + those.behind + 1,
        _ => 0,
    };
    let wide = |digits: Digits| match digits.decimal() {
        Some(DataType::Decimal128(p, s) | DataType::Decimal256(p, s)) => Some(DataType::Decimal256(p, s)),
        _ => None,
    };
    ((39..=76).contains(&digits)).then_some([wide(these)?, wide(those)?])
}

/// The least number of digits behind the point of a quotient of decimals: PostgreSQL's `NUMERIC_MIN_SIG_DIGITS`.
const QUOTIENT: i16 = 16;

/// `BETWEEN` of numbers as two comparisons.
fn between_numbers(Between { expr, negated, low, high }: Between, schema: &DFSchema) -> Result<Expr> {
    let types = [&expr, &low, &high].map(|expr| expr.get_type(schema));
    let [Ok(of), Ok(from), Ok(to)] = types else { return Ok(Expr::Between(Between { expr, negated, low, high })) };
    let is_odd = |ty: &DataType| *ty != of && !ty.is_null();
    let judged = of.is_numeric() || from.is_numeric() || common_time(&[&of, &from, &to]).is_some();
    if !judged || !(is_odd(&from) || is_odd(&to)) {
        return Ok(Expr::Between(Between { expr, negated, low, high }));
    }
    let above = comparison(*expr.clone(), Operator::GtEq, *low, schema)?;
    let below = comparison(*expr, Operator::LtEq, *high, schema)?;
    let inside = above.and(below);
    Ok(if negated { Expr::Not(Box::new(inside)) } else { inside })
}

/// `IN` of numbers in one type, or as comparisons where there is none.
fn in_list(InList { expr, list, negated }: InList, schema: &DFSchema) -> Result<Expr> {
    let unchanged = |expr, list| Ok(Expr::InList(InList { expr, list, negated }));
    let Ok(of) = expr.get_type(schema) else { return unchanged(expr, list) };
    let types: Vec<DataType> = list.iter().map(|item| item.get_type(schema)).collect::<Result<_>>()?;
    if types.iter().all(|ty| *ty == of || ty.is_null()) {
        return unchanged(expr, list);
    }
    let all: Vec<&DataType> = std::iter::once(&of).chain(&types).collect();
    if let Some(ty) = common_time(&all) {
        let list = list.into_iter().zip(&types).map(|(item, from)| as_time(item, from, &ty)).collect();
        return unchanged(Box::new(as_time(*expr, &of, &ty)), list);
    }
    if !of.is_numeric() {
        return unchanged(expr, list);
    }
    let mut items = vec![];
    for item in list {
        items.push(if is_text(&item) { number_of(&item, &of)? } else { item });
    }
    if of.is_integer() && items.iter().all(|item| item.get_type(schema).is_ok_and(|ty| ty.is_integer() || ty.is_null()))
    {
        return unchanged(expr, items);
    }
    if let Some((expr, items)) = one_type(&expr, &of, &items, schema)? {
        return unchanged(Box::new(expr), items);
    }
    let mut any = lit(false);
    for item in items {
        any = any.or(comparison(*expr.clone(), Operator::Eq, item, schema)?);
    }
    Ok(if negated { Expr::Not(Box::new(any)) } else { any })
}

/// An expression and what it is looked for in, in one type that holds them exactly; none if there is none.
fn one_type(expr: &Expr, of: &DataType, items: &[Expr], schema: &DFSchema) -> Result<Option<(Expr, Vec<Expr>)>> {
    let mut made = vec![];
    if of.is_floating() {
        for item in items {
            let ty = item.get_type(schema)?;
            match exact_double(item, &ty) {
                Some(item) => made.push(item),
                None if ty.is_floating() || ty.is_null() => made.push(item.clone()),
                None => return Ok(None),
            }
        }
        return Ok(Some((expr.clone(), made)));
    }
    let mut digits = Digits::of(expr, of);
    for item in items {
        let ty = item.get_type(schema)?;
        if !ty.is_null() {
            digits = digits.zip(Digits::of(item, &ty)).map(|(these, those)| these.with(those));
        }
    }
    let Some(ty) = digits.and_then(Digits::decimal) else { return Ok(None) };
    for item in items {
        let from = item.get_type(schema)?;
        made.push(if from.is_null() { item.clone() } else { numbers::widened(item.clone(), &from, &ty) });
    }
    Ok(Some((numbers::widened(expr.clone(), of, &ty), made)))
}

/// `CASE`: its comparisons exact, its values in a type that holds them all.
fn chosen_by_case(case: Case, schema: &DFSchema) -> Result<Expr> {
    let Case { expr, when_then_expr, else_expr } = case;
    let (mut whens, mut thens): (Vec<Expr>, Vec<Expr>) = (vec![], vec![]);
    for (when, then) in when_then_expr {
        whens.push(*when);
        thens.push(*then);
    }
    let expr = match expr {
        Some(expr) if is_mixed(&expr, &whens, schema) => {
            let compared = whens.into_iter().map(|when| comparison(*expr.clone(), Operator::Eq, when, schema));
            whens = compared.collect::<Result<_>>()?;
            None
        }
        expr => expr,
    };
    let has_else = else_expr.is_some();
    thens.extend(else_expr.map(|expr| *expr));
    let mut values = chosen("CASE", thens, schema)?;
    let else_expr = if has_else { values.pop().map(Box::new) } else { None };
    let when_then_expr = whens.into_iter().map(Box::new).zip(values.into_iter().map(Box::new)).collect();
    Ok(Expr::Case(Case { expr, when_then_expr, else_expr }))
}

/// Whether an expression is compared with values of other types, of numbers or times.
fn is_mixed(expr: &Expr, values: &[Expr], schema: &DFSchema) -> bool {
    let Ok(of) = expr.get_type(schema) else { return false };
    let judged = of.is_numeric() || matches!(of, DataType::Timestamp(..) | DataType::Date32);
    judged && values.iter().any(|value| value.get_type(schema).is_ok_and(|ty| ty != of && !ty.is_null()))
}

/// Values of which one is chosen, in a type that holds them all.
///
/// # Errors
/// Decimals that none of 76 digits holds.
fn chosen(what: &str, values: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let mut types = vec![];
    for value in &values {
        match value.get_type(schema) {
            Ok(ty) => types.push(ty),
            Err(_) => return Ok(values),
        }
    }
    let known: Vec<&DataType> = types.iter().filter(|ty| !ty.is_null()).collect();
    let Some((first, rest)) = known.split_first() else { return Ok(values) };
    if rest.iter().all(|ty| ty == first) {
        return Ok(values);
    }
    if let Some(ty) = common_time(&known) {
        return Ok(values.into_iter().zip(&types).map(|(value, from)| as_time(value, from, &ty)).collect());
    }
    if what != "CASE" && known.iter().any(|ty| ty.is_numeric()) && known.iter().any(|ty| ty.is_string()) {
        return plan_err!("{what}() chooses between numbers and text: cast them to one type");
    }
    if known.iter().all(|ty| ty.is_signed_integer()) {
        // What follows has to know the type that DataFusion would give them.
        let widest = known.iter().max_by_key(|ty| ty.primitive_width()).map(|ty| (*ty).clone());
        let ty = widest.unwrap_or(DataType::Int64);
        let widened = |(value, from): (Expr, &DataType)| {
            if from.is_null() { value } else { numbers::widened(value, from, &ty) }
        };
        return Ok(values.into_iter().zip(&types).map(widened).collect());
    }
    if !known.iter().all(|ty| ty.is_numeric()) || known.iter().all(|ty| ty.is_integer()) {
        return Ok(values);
    }
    if known.iter().any(|ty| ty.is_floating()) {
        let double = |(value, ty): (Expr, &DataType)| match numbers::as_double(&value) {
            Some(value) => value,
            None if ty.is_null() || *ty == DataType::Float64 => value,
            None => cast(value, DataType::Float64),
        };
        return Ok(values.into_iter().zip(&types).map(double).collect());
    }
    let digits = values.iter().zip(&types).filter(|(_, ty)| !ty.is_null());
    let digits = digits.filter_map(|(value, ty)| Digits::of(value, ty)).reduce(Digits::with);
    let Some(ty) = digits.and_then(Digits::decimal) else {
        return plan_err!("no decimal of 76 digits holds every value of {what}: cast them to one type");
    };
    let widened =
        |(value, from): (Expr, &DataType)| if from.is_null() { value } else { numbers::widened(value, from, &ty) };
    Ok(values.into_iter().zip(&types).map(widened).collect())
}

/// Calls whose arguments are chosen between, and those that make times.
fn function(call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let ScalarFunction { func, args } = call;
    let made = match func.name() {
        "coalesce" | "nvl" | "greatest" | "least" => {
            let args = chosen(func.name(), args, schema)?;
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        "make_array" => {
            let args = chosen("a list", args, schema)?;
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        name if SEARCHES.contains(&name) => {
            let item = |expr: &Expr| match expr.get_type(schema) {
                Ok(DataType::List(item)) => Some(item.data_type().clone()),
                Ok(ty) => Some(ty),
                Err(_) => None,
            };
            if let [these, those, ..] = &args[..]
                && let (Some(these), Some(those)) = (item(these), item(those))
                && !numbers::meet_exactly(&these, &those)
            {
                return plan_err!("{name}() compares numbers of different types: cast one of them");
            }
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        "nvl2" if args.len() == 3 => {
            let mut args = args;
            let values = chosen("nvl2", args.split_off(1), schema)?;
            args.extend(values);
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        "nullif" if args.len() == 2 && is_mixed(&args[0], &args[1..], schema) => {
            let mut args = args.into_iter();
            let (Some(value), Some(other)) = (args.next(), args.next()) else {
                return plan_err!("nullif takes two values");
            };
            let equal = comparison(value.clone(), Operator::Eq, other, schema)?;
            let ty = value.get_type(schema)?;
            when(equal, lit(ScalarValue::try_from(&ty)?)).otherwise(value)?
        }
        "to_timestamp" if !args.is_empty() => return time_of(func, args, schema),
        _ => Expr::ScalarFunction(ScalarFunction { func, args }),
    };
    match made.get_type(schema) {
        Ok(DataType::Timestamp(unit, zone)) if unit != TimeUnit::Microsecond => {
            Ok(cast(made, DataType::Timestamp(TimeUnit::Microsecond, zone)))
        }
        _ => Ok(made),
    }
}

/// Functions that compare the items of a list with another value.
const SEARCHES: [&str; 14] = [
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_n",
    "array_remove_all",
    "array_replace",
    "array_replace_n",
    "array_replace_all",
    "array_except",
    "array_intersect",
    "array_union",
];

/// `to_timestamp` in microseconds: DataFusion's is in nanoseconds, which end in 2262.
fn time_of(
    func: std::sync::Arc<datafusion::logical_expr::ScalarUDF>,
    args: Vec<Expr>,
    schema: &DFSchema,
) -> Result<Expr> {
    let (call, options) = (|func, args| Expr::ScalarFunction(ScalarFunction { func, args }), ConfigOptions::default());
    match args[0].get_type(schema) {
        Ok(ty) if ty.is_string() => Ok(call(to_timestamp_micros(&options), args)),
        Ok(ty) if ty.is_integer() => Ok(cast(call(to_timestamp_seconds(&options), args), TIME)),
        Ok(ty) if ty.is_floating() || ty.is_decimal() => {
            let micros = binary(args[0].clone(), Operator::Multiply, lit(1_000_000i64));
            Ok(call(
                to_timestamp_micros(&options),
                vec![Expr::TryCast(TryCast::new(Box::new(micros), DataType::Int64))],
            ))
        }
        Ok(DataType::Timestamp(..)) => Ok(as_micros(args.into_iter().next().unwrap_or_else(|| lit(ScalarValue::Null)))),
        _ => Ok(cast(call(func, args), TIME)),
    }
}

fn as_micros(expr: Expr) -> Expr {
    cast(expr, TIME)
}

/// What a cast to a time becomes: in microseconds, with numbers as seconds. The operand again where it stays as it is.
fn time_cast(operand: Expr, to: &DataType, schema: &DFSchema) -> Result<std::result::Result<(Expr, DataType), Expr>> {
    let DataType::Timestamp(unit, zone) = to else { return Ok(Err(operand)) };
    let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
    // What was cast to microseconds before.
    let operand = match operand {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == micros && *to == micros => {
            return Ok(Ok((*expr, micros)));
        }
        other => other,
    };
    match operand.get_type(schema) {
        // A number counts seconds.
        Ok(ty) if ty.is_integer() => Ok(Ok((cast(operand, DataType::Timestamp(TimeUnit::Second, None)), micros))),
        _ if *unit != TimeUnit::Microsecond => Ok(Ok((operand, micros))),
        _ => Ok(Err(operand)),
    }
}

/// A constant time of another unit in microseconds, and a decimal without zeros before the point that it leaves out.
fn plain(value: &ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Decimal128(Some(_), _, scale) | ScalarValue::Decimal256(Some(_), _, scale) if *scale < 0 => {
            value.cast_to(&Digits::of_type(&value.data_type())?.decimal()?).ok()
        }
        ScalarValue::TimestampNanosecond(time, zone) => {
            Some(ScalarValue::TimestampMicrosecond(time.map(|time| time.div_euclid(1_000)), zone.clone()))
        }
        _ => None,
    }
}

/// The type of times that holds all of these: times, dates, and texts that name times. None without a time among them.
fn common_time(types: &[&DataType]) -> Option<DataType> {
    let time = types.iter().find(|ty| matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)))?;
    let named = |ty: &DataType| ty.is_string() || ty.is_null() || matches!(ty, DataType::Date32 | DataType::Date64);
    types.iter().all(|ty| ty == time || named(ty)).then(|| (*time).clone())
}

fn as_time(expr: Expr, from: &DataType, ty: &DataType) -> Expr {
    if from == ty || from.is_null() { expr } else { cast(expr, ty.clone()) }
}
