//! DataFusion's messages in one line, with SQL's names of types.

/// A message in one line and in SQL's words, without the planner's own structures and its wishes for bug reports.
pub fn readable(message: &str) -> String {
    if message.contains("Regular expression did not compile") {
        return "the regular expression does not compile".to_string();
    }
    if let Some(NoMatch { call, .. }) = no_match(message) {
        let name = call.split('(').next().unwrap_or_default();
        return format!("{name} does not take these arguments: {call}");
    }
    let structure = message.contains("Span(") || message.contains(" { ") || message.contains("Location(");
    if structure {
        return "this syntax is not supported".to_string();
    }
    let first = message.split_once('\n').map_or(message, |(first, _)| first.trim_end_matches(':'));
    in_sql(first)
}

/// A call whose arguments fit no signature of its function.
pub(crate) struct NoMatch {
    /// The call with its arguments' types.
    pub(crate) call: String,
    /// The calls that the function takes. None where its signature has no names of types.
    pub(crate) candidates: Option<String>,
}

/// What a message says of a call that fits no signature.
pub(crate) fn no_match(message: &str) -> Option<NoMatch> {
    let (_, rest) = message.split_once("No function matches the given name and argument types '")?;
    let (call, rest) = rest.split_once("'.")?;
    let (_, candidates) = rest.split_once("Candidate functions:")?;
    let candidates: Vec<&str> = candidates.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let candidates = candidates.join(" or ");
    let is_internal = ["UserDefined", "Coercible", "Uniform", "Variadic", "Any", "Numeric", "Comparable", "Nullary"];
    let named = !is_internal.iter().any(|word| candidates.contains(word));
    Some(NoMatch { call: in_sql(call), candidates: named.then(|| in_sql(&candidates)) })
}

/// Arrow's names of types as SQL's. A quoted word is somebody's own.
fn in_sql(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
        let (word, after) = (&rest[start..end], &rest[end..]);
        out.push_str(&rest[..start]);
        match sql_type(word, after)
            .filter(|_| !out.ends_with(['\'', '"', '_', '.']) && !out.ends_with(char::is_alphanumeric))
        {
            Some((name, taken)) => {
                out.push_str(&name);
                rest = &after[taken..];
            }
            None => {
                out.push_str(word);
                rest = after;
            }
        }
    }
    out + rest
}

/// SQL's name of Arrow's type, and how many bytes of what follows belong to it.
fn sql_type(word: &str, after: &str) -> Option<(String, usize)> {
    let (inner, taken) = parameters(after).unwrap_or_default();
    let plain = match word {
        "Boolean" => "BOOLEAN",
        "Int8" | "Int16" | "Int32" => "INT",
        "Int64" => "BIGINT",
        "UInt8" | "UInt16" | "UInt32" => "INT UNSIGNED",
        "UInt64" => "BIGINT UNSIGNED",
        "Float16" | "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Utf8" | "LargeUtf8" | "Utf8View" => "TEXT",
        "Binary" | "LargeBinary" | "BinaryView" => "BYTEA",
        "Date32" | "Date64" => "DATE",
        _ if taken == 0 => return None,
        "Time32" | "Time64" => return Some(("TIME".to_string(), taken)),
        "Interval" | "Duration" => return Some(("INTERVAL".to_string(), taken)),
        "Timestamp" if inner.contains('"') => return Some(("TIMESTAMP WITH TIME ZONE".to_string(), taken)),
        "Timestamp" => return Some(("TIMESTAMP".to_string(), taken)),
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => return Some((format!("DECIMAL({inner})"), taken)),
        "List" | "LargeList" | "FixedSizeList" | "ListView" => {
            let element = inner.split(", field").next().unwrap_or_default();
            let element = element.trim_start_matches("nullable ").trim_start_matches("non-null ");
            return Some((format!("{}[]", in_sql(element)), taken));
        }
        _ => return None,
    };
    Some((plain.to_string(), 0))
}

/// The text between the parentheses at the start of `after`, and the length of both parentheses and text.
fn parameters(after: &str) -> Option<(&str, usize)> {
    if !after.starts_with('(') {
        return None;
    }
    let mut depth = 0;
    let close = after.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    })?;
    Some((&after[1..close], close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_of_sql() {
        let said = [
            ("value 'x' beyond Int64", "value 'x' beyond BIGINT"),
            ("Interval(MonthDayNano) + Timestamp(µs)", "INTERVAL + TIMESTAMP"),
            ("Timestamp(µs, \"UTC\") and Decimal128(38, 2)", "TIMESTAMP WITH TIME ZONE and DECIMAL(38, 2)"),
            ("List(nullable Int32, field: 'item') of Utf8View", "INT[] of TEXT"),
            ("column 'Int64' of \"Date32\"", "column 'Int64' of \"Date32\""),
            ("MyInt64 and my_Int64 and Int64s", "MyInt64 and my_Int64 and Int64s"),
            ("Decimal128 and Timestamp", "Decimal128 and Timestamp"),
        ];
        for (arrow, sql) in said {
            assert_eq!(readable(arrow), sql);
        }
    }

    #[test]
    fn a_call_that_fits_no_signature_has_no_internal_names() {
        let message = "Failed to coerce arguments. No function matches the given name and argument types 'coalesce(Utf8, \
                       Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tcoalesce(UserDefined)";
        assert_eq!(readable(message), "coalesce does not take these arguments: coalesce(TEXT, BIGINT)");
        assert!(no_match(message).expect("it is one").candidates.is_none());
        let message = message.replace("UserDefined", "Int64");
        assert_eq!(no_match(&message).expect("it is one").candidates.as_deref(), Some("coalesce(BIGINT)"));
    }
}
