//! The types of columns.

use datafusion::sql::sqlparser::ast::{self, DataType as SqlType, ExactNumberInfo};

use super::normal;
use crate::schema::Type;

/// A type that no column can have.
pub(super) struct WrongType {
    /// The word to point at.
    pub(super) word: String,
    pub(super) message: String,
    pub(super) hint: String,
}

/// The type that SQL names; else what is wrong and what to do.
pub(super) fn column_type(sql: &SqlType) -> Result<Type, WrongType> {
    let wrong = |message: String, hint: &str| {
        let text = sql.to_string();
        let word = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_string();
        Err(WrongType { word, message, hint: hint.to_string() })
    };
    let decimal = |info: &ExactNumberInfo| match info {
        ExactNumberInfo::PrecisionAndScale(p, s) if (1..=38).contains(p) && (0..=*p as i64).contains(s) => {
            Ok(Type::Decimal(*p as u8, *s as i8))
        }
        ExactNumberInfo::Precision(p) if (1..=38).contains(p) => Ok(Type::Decimal(*p as u8, 0)),
        ExactNumberInfo::None => wrong(
            "a decimal needs its number of digits".to_string(),
            "write DECIMAL(p, s): p digits in all, up to 38, s of them behind the point",
        ),
        _ => wrong(format!("there is no {sql}"), "write DECIMAL(p, s) with p from 1 to 38 and s from 0 to p"),
    };
    match sql {
        SqlType::Boolean | SqlType::Bool => Ok(Type::Boolean),
        SqlType::Int(None) | SqlType::Integer(None) | SqlType::Int4(None) => Ok(Type::Int),
        SqlType::BigInt(None) | SqlType::Int8(None) => Ok(Type::BigInt),
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => Ok(Type::Double),
        SqlType::Decimal(info) | SqlType::Numeric(info) => decimal(info),
        SqlType::Text | SqlType::String(None) | SqlType::Varchar(None) => Ok(Type::Text),
        SqlType::Timestamp(None, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => Ok(Type::Timestamp),
        SqlType::JSON => Ok(Type::Json),
        SqlType::Array(
            ast::ArrayElemTypeDef::SquareBracket(item, None) | ast::ArrayElemTypeDef::AngleBracket(item),
        ) => Ok(Type::Array(Box::new(column_type(item)?))),
        SqlType::Struct(fields, _) => {
            let mut known: Vec<(String, Type)> = vec![];
            for field in fields {
                let Some(name) = field.field_name.as_ref().map(normal) else {
                    return wrong("a field of a STRUCT needs a name".to_string(), "write STRUCT<name TYPE, …>");
                };
                if known.iter().any(|(other, _)| *other == name) {
                    let message = format!("field {name:?} of the STRUCT is declared twice");
                    return wrong(message, "names differ by case only if they stand in double quotes");
                }
                known.push((name, column_type(&field.field_type)?));
            }
            match known.is_empty() {
                true => wrong("a STRUCT needs fields".to_string(), "write STRUCT<name TYPE, …>, or JSON for any value"),
                false => Ok(Type::Struct(known)),
            }
        }
        _ => wrong(
            format!("the type {sql} is not supported"),
            "use BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, JSON, STRUCT<…> or T[]",
        ),
    }
}
