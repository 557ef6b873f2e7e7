//! `SIMILAR TO` with SQL's meaning: the pattern has to match the whole text, `%` and `_` are wildcards as in LIKE.
//!
//! DataFusion takes the pattern for a regular expression that matches anywhere. Here it becomes one that means what
//! PostgreSQL's does (<https://www.postgresql.org/docs/current/functions-matching.html>, 9.7.2).

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, Value};

use super::Unclear;

/// Makes a SIMILAR TO a match of a regular expression.
///
/// # Errors
/// A pattern that is not a constant text, or not a pattern.
pub(super) fn correct(expr: &mut Expr) -> Result<(), Unclear> {
    let Expr::SimilarTo { negated, expr: text, pattern, escape_char } = expr else { return Ok(()) };
    let at = pattern.span().start;
    let unclear = |message: String, hint: &str| Unclear { message, hint: hint.to_string(), at };
    let constant = |expr: &Expr| match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    let mut inner = &**pattern;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let Some(sql) = constant(inner) else {
        let message = "the pattern of SIMILAR TO has to be a constant text".to_string();
        return Err(unclear(message, "write it in single quotes, or match a regular expression: x ~ pattern"));
    };
    let escape = match escape_char.take().map(|escape| escape.value.into_string().unwrap_or_default()) {
        None => Some('\\'),
        Some(escape) => {
            let mut chars = escape.chars();
            let first = chars.next();
            if chars.next().is_some() {
                return Err(unclear(format!("{escape:?} is not one character to escape with"), "write ESCAPE '!'"));
            }
            first
        }
    };
    let regex = regex_of(&sql, escape).ok_or_else(|| {
        unclear(format!("{sql:?} is not a pattern of SIMILAR TO"), "close its brackets and escape its last character")
    })?;
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let left = std::mem::replace(&mut **text, Expr::Value(Value::Null.into()));
    let right = Box::new(Expr::Value(Value::SingleQuotedString(regex).into()));
    let matched = Expr::BinaryOp { left: Box::new(left), op, right };
    *expr = Expr::Nested(Box::new(matched));
    Ok(())
}

/// The regular expression of a pattern. None for a bracket that is not closed, or an escape character at the end.
fn regex_of(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut regex = String::from("^(?s:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => regex.push_str(&literal(chars.next()?)),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '|' | '*' | '+' | '?' | '{' | '}' | ')' => regex.push(c),
            '[' => regex.push_str(&class(&mut chars, escape)?),
            c => regex.push_str(&literal(c)),
        }
    }
    regex.push_str(")$");
    Some(regex)
}

/// A bracket expression up to its end; its opening bracket is read.
fn class(chars: &mut std::str::Chars<'_>, escape: Option<char>) -> Option<String> {
    let mut class = String::from("[");
    let mut first = true;
    loop {
        let c = chars.next()?;
        match c {
            '^' if first && class == "[" => {
                class.push('^');
                continue;
            }
            ']' if !first => break,
            '[' if chars.as_str().starts_with(':') => {
                let (name, rest) = chars.as_str().split_once(":]")?;
                class.push('[');
                class.push_str(name);
                class.push_str(":]");
                *chars = rest.chars();
            }
            '-' => class.push('-'),
            c if Some(c) == escape => class.push_str(&literal(chars.next()?)),
            c => class.push_str(&literal(c)),
        }
        first = false;
    }
    class.push(']');
    Some(class)
}

/// A character that stands for itself.
fn literal(c: char) -> String {
    match c {
        c if c.is_alphanumeric() || c.is_whitespace() || !c.is_ascii() => c.to_string(),
        '_' | '"' | '\'' | '/' | ',' | ':' | ';' | '<' | '>' | '=' | '!' | '@' | '%' | '`' => c.to_string(),
        c if c.is_ascii_punctuation() => format!("\\{c}"),
        c => format!("\\x{{{:x}}}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::regex_of;

    #[test]
    fn patterns_become_regular_expressions_of_the_whole_text() {
        for (pattern, regex) in [
            ("x", "^(?s:x)$"),
            ("a%_", "^(?s:a.*.)$"),
            ("(a|b)+c{2}", "^(?s:(?:a|b)+c{2})$"),
            ("a.b$", "^(?s:a\\.b\\$)$"),
            ("[a-c^]\\%", "^(?s:[a-c\\^]%)$"),
            ("[^]x]", "^(?s:[^\\]x])$"),
            ("[[:digit:]_]", "^(?s:[[:digit:]_])$"),
        ] {
            assert_eq!(regex_of(pattern, Some('\\')).as_deref(), Some(regex), "{pattern}");
        }
        assert_eq!(regex_of("a!%", Some('!')).as_deref(), Some("^(?s:a%)$"));
        assert_eq!(regex_of("a\\", None).as_deref(), Some("^(?s:a\\\\)$"));
        assert_eq!(regex_of("[a", Some('\\')), None);
        assert_eq!(regex_of("a\\", Some('\\')), None);
    }
}
