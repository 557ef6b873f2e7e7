//! Pipeline SQL: `CREATE TABLE … WATERMARK … WITH (…)` and `CREATE MATERIALIZED VIEW … AS SELECT …`.
//!
//! Parsed with DataFusion's own parser; the column list is walked here, for the parser has no `WATERMARK`.

use std::path::Path;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DataType as SqlType, ExactNumberInfo, Expr, Ident, Query, Spanned, Statement, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::decode::parse_timestamp;
use crate::error::PipelineError;
use crate::schema::{Column, RESERVED, Source, TimestampUnit, Type};

/// Everything that a pipeline's text declares.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// The sources, in order.
    pub sources: Vec<Source>,
    /// The views, in order, not compiled yet.
    pub views: Vec<ViewText>,
}

/// A view as it was written.
#[derive(Clone, Debug)]
pub struct ViewText {
    /// The view's name.
    pub name: String,
    /// The SELECT.
    pub query: Box<Query>,
    /// Where it stands, for errors found later.
    pub place: Place,
}

/// A statement's place in its file.
#[derive(Clone, Debug)]
pub struct Place {
    file: String,
    text: std::sync::Arc<str>,
    tokens: Vec<TokenWithSpan>,
}

impl Place {
    /// An error at the first token of the statement that is `word`, else at the statement's start.
    pub fn error_at(&self, word: &str, message: impl Into<String>, hint: Option<String>) -> PipelineError {
        let is_word = |token: &&TokenWithSpan| match &token.token {
            Token::Word(found) => found.value.eq_ignore_ascii_case(word),
            _ => false,
        };
        // The word may be the view's own name: what stands after AS comes first.
        let body = self.tokens.iter().position(|t| matches!(&t.token, Token::Word(w) if w.keyword == Keyword::AS));
        let found = self.tokens[body.unwrap_or(0)..].iter().find(is_word);
        let found = found.or_else(|| self.tokens.iter().find(|t| !matches!(t.token, Token::Whitespace(_))));
        self.error(found.map_or(Location::new(1, 1), |token| token.span.start), message, hint)
    }

    /// An error at a line and a column.
    pub fn error(&self, at: Location, message: impl Into<String>, hint: Option<String>) -> PipelineError {
        let at = if at.line == 0 { Location::new(1, 1) } else { at };
        PipelineError {
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            text: self.text.lines().nth(at.line as usize - 1).unwrap_or_default().to_string(),
            message: message.into(),
            hint,
        }
    }
}

/// A pipeline that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder that cannot be read.
    #[error("cannot read the pipeline {path}: {source}; name it with --pipeline or `pipeline` in bifold.toml")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A folder without `*.sql`.
    #[error("the pipeline folder {path} holds no *.sql file")]
    Empty {
        /// The folder.
        path: String,
    },
    /// SQL that is wrong.
    #[error("{0}")]
    Sql(Box<PipelineError>),
}

impl From<PipelineError> for ReadError {
    fn from(error: PipelineError) -> Self {
        ReadError::Sql(Box::new(error))
    }
}

/// Reads a file, or all `*.sql` of a folder in order of name. `max_record` is part of how records decode.
///
/// # Errors
/// A file that cannot be read, or the first mistake in it.
pub fn read(path: &Path, max_record: u64) -> Result<Pipeline, ReadError> {
    let unreadable = |path: &Path, source| ReadError::Unreadable { path: path.display().to_string(), source };
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        files = entries.map_err(|e| unreadable(path, e))?.into_iter().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
        files.sort();
        if files.is_empty() {
            return Err(ReadError::Empty { path: path.display().to_string() });
        }
    }
    let mut pipeline = Pipeline::default();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|e| unreadable(&file, e))?;
        parse_into(&mut pipeline, &file.display().to_string(), &text, max_record)?;
    }
    Ok(pipeline)
}

/// Parses one text.
///
/// # Errors
/// The first mistake in it.
pub fn parse(file: &str, text: &str, max_record: u64) -> Result<Pipeline, PipelineError> {
    let mut pipeline = Pipeline::default();
    parse_into(&mut pipeline, file, text, max_record)?;
    Ok(pipeline)
}

fn parse_into(pipeline: &mut Pipeline, file: &str, text: &str, max_record: u64) -> Result<(), PipelineError> {
    let all = Place { file: file.to_string(), text: text.into(), tokens: vec![] };
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|e| all.error(e.location, e.message, None))?;
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        if tokens.iter().all(|token| matches!(token.token, Token::Whitespace(_) | Token::EOF)) {
            continue;
        }
        let place = Place { tokens: tokens.to_vec(), ..all.clone() };
        statement(pipeline, place, max_record)?;
    }
    Ok(())
}

fn statement(pipeline: &mut Pipeline, place: Place, max_record: u64) -> Result<(), PipelineError> {
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(place.tokens.clone());
    let mut reader = Reader { place: &place, parser: &mut parser };
    if reader.parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE]) {
        let source = reader.source(max_record)?;
        if pipeline.sources.iter().any(|known| known.name == source.name) {
            return Err(place.error_at(&source.name, format!("source {:?} is declared twice", source.name), None));
        }
        let taken =
            pipeline.sources.iter().find(|known| known.topics.iter().any(|topic| source.topics.contains(topic)));
        if let Some(taken) = taken {
            let message = format!("a topic of source {:?} is already read by source {:?}", source.name, taken.name);
            return Err(place.error_at("topic", message, Some("one source may feed many views".into())));
        }
        pipeline.sources.push(source);
        return Ok(());
    }
    let hint =
        "a pipeline holds CREATE TABLE … WITH (connector = 'kafka', …) and CREATE MATERIALIZED VIEW … AS SELECT …";
    let parsed = reader.parser.parse_statement();
    let parsed =
        parsed.and_then(|s| reader.parser.expect_token(&Token::EOF).map(|_| s)).map_err(|e| reader.wrong(e))?;
    match parsed {
        Statement::CreateView(view) if view.materialized => {
            let name = simple_name(&place, &view.name)?;
            if !view.columns.is_empty() {
                let hint = Some("name columns with AS in the SELECT".to_string());
                return Err(place.error_at(&name, "a view has no column list", hint));
            }
            if pipeline.views.iter().any(|known| known.name == name)
                || pipeline.sources.iter().any(|known| known.name == name)
            {
                return Err(place.error_at(&name, format!("{name:?} is declared twice"), None));
            }
            pipeline.views.push(ViewText { name, query: view.query, place: place.clone() });
            Ok(())
        }
        Statement::CreateView(_) => {
            let hint = Some("write CREATE MATERIALIZED VIEW: bifold keeps every view up to date".to_string());
            Err(place.error_at("VIEW", "a plain view is not supported", hint))
        }
        other => {
            Err(place.error(other.span().start, "this statement has no place in a pipeline", Some(hint.to_string())))
        }
    }
}

fn simple_name(place: &Place, name: &ast::ObjectName) -> Result<String, PipelineError> {
    let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    match parts[..] {
        [ident] if !normal(ident).contains('/') && !normal(ident).is_empty() => Ok(normal(ident)),
        _ => Err(place.error(name.span().start, format!("{name} is not a simple name"), None)),
    }
}

/// Unquoted names are lower case, as in PostgreSQL.
fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

struct Reader<'a, 'b> {
    place: &'a Place,
    parser: &'a mut Parser<'b>,
}

impl Reader<'_, '_> {
    /// The parser's error at the place it names, else where the parser stands.
    fn wrong(&self, error: ParserError) -> PipelineError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_string(),
        };
        if let Some((message, at)) = message.rsplit_once(" at Line: ")
            && let Some((line, column)) = at.split_once(", Column: ")
            && let (Ok(line), Ok(column)) = (line.parse(), column.parse())
        {
            return self.place.error(Location::new(line, column), message, None);
        }
        let here = self.parser.peek_token().span.start;
        let last = self.place.tokens.iter().rfind(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
        let here = if here.line == 0 { last.map_or(Location::new(1, 1), |t| t.span.end) } else { here };
        self.place.error(here, message, None)
    }

    fn source(&mut self, max_record: u64) -> Result<Source, PipelineError> {
        let _ = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = self.parser.parse_object_name(false).map_err(|e| self.wrong(e))?;
        let name = simple_name(self.place, &name)?;
        let mut source = Source {
            name,
            topics: vec![],
            columns: vec![],
            event_time: None,
            watermark_delay_us: 0,
            timestamp_unit: None,
            event_time_min_us: None,
            event_time_max_us: None,
            event_time_max_ahead_us: None,
            max_record,
        };
        let mut watermark = None;
        self.parser.expect_token(&Token::LParen).map_err(|e| self.wrong(e))?;
        loop {
            let next = self.parser.peek_token();
            match &next.token {
                Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("watermark") => {
                    if watermark.is_some() {
                        return Err(self.place.error(next.span.start, "a source has one WATERMARK", None));
                    }
                    watermark = Some(self.watermark()?);
                }
                _ => self.column(&mut source)?,
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.parser.expect_token(&Token::RParen).map_err(|e| self.wrong(e))?;
        self.options(&mut source)?;
        self.parser.expect_token(&Token::EOF).map_err(|e| self.wrong(e))?;
        if let Some((column, delay_us, at)) = watermark {
            let declared = source.columns.iter().find(|known| known.name == column);
            if declared.is_none_or(|known| known.ty != Type::Timestamp) {
                let message = format!("the WATERMARK is for {column:?}, which is no TIMESTAMP column of this table");
                return Err(self.place.error(at, message, None));
            }
            source.event_time = Some(column);
            source.watermark_delay_us = delay_us;
        }
        Ok(source)
    }

    fn column(&mut self, source: &mut Source) -> Result<(), PipelineError> {
        let at = self.parser.peek_token().span.start;
        let definition = self.parser.parse_column_def().map_err(|e| self.wrong(e))?;
        let name = normal(&definition.name);
        if let Some(option) = definition.options.first() {
            let hint = Some("a column has a name and a type; a missing or null value is NULL".to_string());
            return Err(self.place.error(at, format!("column {name:?} has the option {}", option.option), hint));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(self.place.error(at, format!("the name {name:?} is reserved for the log's own columns"), None));
        }
        if source.columns.iter().any(|known| known.name == name) {
            return Err(self.place.error(at, format!("column {name:?} is declared twice"), None));
        }
        let ty = column_type(&definition.data_type).map_err(|(message, hint)| {
            let word = definition.data_type.to_string();
            let word = word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string();
            let mut tokens = self.place.tokens.iter().filter(|token| token.span.start >= at);
            let found = tokens.find(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(&word)));
            self.place.error(found.map_or(at, |token| token.span.start), message, Some(hint))
        })?;
        source.columns.push(Column { name, ty });
        Ok(())
    }

    /// `WATERMARK FOR column AS column [- INTERVAL '…']`: the column, the delay in microseconds and the place.
    fn watermark(&mut self) -> Result<(String, i64, Location), PipelineError> {
        self.parser.next_token();
        self.parser.expect_keyword(Keyword::FOR).map_err(|e| self.wrong(e))?;
        let at = self.parser.peek_token().span.start;
        let column = normal(&self.parser.parse_identifier().map_err(|e| self.wrong(e))?);
        self.parser.expect_keyword(Keyword::AS).map_err(|e| self.wrong(e))?;
        let delay_at = self.parser.peek_token().span.start;
        let delay = self.parser.parse_expr().map_err(|e| self.wrong(e))?;
        let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if normal(ident) == column);
        let delay_us = match &delay {
            expr if is_column(expr) => Some(0),
            Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => interval_us(right),
            _ => None,
        };
        match delay_us {
            Some(delay_us) => Ok((column, delay_us, at)),
            None => {
                let message = format!("write AS {column} or AS {column} - INTERVAL '10 seconds'");
                Err(self.place.error(delay_at, "this watermark is not understood", Some(message)))
            }
        }
    }

    fn options(&mut self, source: &mut Source) -> Result<(), PipelineError> {
        let at = self.parser.peek_token().span.start;
        let hint = || Some("WITH (connector = 'kafka', topic = '…', format = 'json')".to_string());
        if !self.parser.parse_keyword(Keyword::WITH) {
            let at = if at.line == 0 { self.wrong(ParserError::ParserError(String::new())).into_place() } else { at };
            return Err(self.place.error(at, "a source needs WITH (…)", hint()));
        }
        self.parser.expect_token(&Token::LParen).map_err(|e| self.wrong(e))?;
        let mut connector = false;
        while !self.parser.consume_token(&Token::RParen) {
            let at = self.parser.peek_token().span.start;
            let name = self.parser.parse_identifier().map_err(|e| self.wrong(e))?.value.to_lowercase();
            self.parser.expect_token(&Token::Eq).map_err(|e| self.wrong(e))?;
            let value_at = self.parser.peek_token().span.start;
            let value = match self.parser.parse_value().map_err(|e| self.wrong(e))?.value {
                Value::SingleQuotedString(text) => text,
                other => other.to_string(),
            };
            connector |= name == "connector";
            self.option(source, (&name, at), (&value, value_at))?;
            if !self.parser.consume_token(&Token::Comma) {
                self.parser.expect_token(&Token::RParen).map_err(|e| self.wrong(e))?;
                break;
            }
        }
        if !connector || source.topics.is_empty() {
            let missing = if connector { "topic" } else { "connector" };
            return Err(self.place.error(at, format!("the option {missing} is missing"), hint()));
        }
        Ok(())
    }

    fn option(
        &self,
        source: &mut Source,
        (name, name_at): (&str, Location),
        (value, at): (&str, Location),
    ) -> Result<(), PipelineError> {
        let wrong = |hint: &str| self.place.error(at, format!("{name} cannot be {value:?}"), Some(hint.to_string()));
        let time = || parse_timestamp(value).ok_or_else(|| wrong("write a time such as '2015-09-12T00:00:00Z'"));
        match name {
            "connector" if value == "kafka" => {}
            "connector" => return Err(wrong("the connector is 'kafka'")),
            "format" if value == "json" => {}
            "format" => return Err(wrong("the format is 'json'")),
            "topic" => {
                source.topics = value.split(',').map(|topic| topic.trim().to_string()).collect();
                let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                let good = |topic: &String| !topic.is_empty() && topic.len() <= 249 && topic.chars().all(legal);
                let mut distinct = source.topics.clone();
                distinct.sort();
                distinct.dedup();
                if !source.topics.iter().all(good) || distinct.len() != source.topics.len() {
                    return Err(wrong("name one topic, or several that differ, separated by commas"));
                }
            }
            "timestamp_unit" => {
                source.timestamp_unit = Some(match value {
                    "s" => TimestampUnit::Seconds,
                    "ms" => TimestampUnit::Milliseconds,
                    "us" => TimestampUnit::Microseconds,
                    "ns" => TimestampUnit::Nanoseconds,
                    _ => return Err(wrong("the unit is 's', 'ms', 'us' or 'ns'")),
                });
            }
            "event_time_min" => source.event_time_min_us = Some(time()?),
            "event_time_max" => source.event_time_max_us = Some(time()?),
            "event_time_max_ahead" => {
                let ahead = parse_interval_us(value).ok_or_else(|| wrong("write a duration such as '1 hour'"))?;
                source.event_time_max_ahead_us = Some(ahead);
            }
            _ => {
                const NAMES: [&str; 7] = [
                    "connector",
                    "topic",
                    "format",
                    "timestamp_unit",
                    "event_time_min",
                    "event_time_max",
                    "event_time_max_ahead",
                ];
                let nearest = NAMES.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
                let hint = nearest.map(|nearest| format!("the nearest is {nearest:?}"));
                return Err(self.place.error(name_at, format!("unknown option {name:?}"), hint));
            }
        }
        Ok(())
    }
}

impl PipelineError {
    fn into_place(self) -> Location {
        Location::new(self.line, self.column)
    }
}

fn interval_us(expr: &Expr) -> Option<i64> {
    let Expr::Interval(interval) = expr else { return None };
    let text = match &*interval.value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(number, _) => number.to_string(),
            _ => return None,
        },
        _ => return None,
    };
    match &interval.leading_field {
        Some(field) => parse_interval_us(&format!("{text} {field}")),
        None => parse_interval_us(&text),
    }
}

/// Microseconds of a duration without months: `10 seconds`, `1 hour`, `90s`.
fn parse_interval_us(text: &str) -> Option<i64> {
    let interval = parse_interval_month_day_nano(text).ok()?;
    let days_us = i64::from(interval.days).checked_mul(86_400_000_000)?;
    let total = days_us.checked_add(interval.nanoseconds / 1_000)?;
    (interval.months == 0 && total >= 0).then_some(total)
}

/// The type that SQL names; else what is wrong and what to do.
fn column_type(sql: &SqlType) -> Result<Type, (String, String)> {
    let decimal = |info: &ExactNumberInfo| match info {
        ExactNumberInfo::PrecisionAndScale(p, s) if (1..=38).contains(p) && (0..=*p as i64).contains(s) => {
            Ok(Type::Decimal(*p as u8, *s as i8))
        }
        ExactNumberInfo::Precision(p) if (1..=38).contains(p) => Ok(Type::Decimal(*p as u8, 0)),
        _ => Err((format!("{sql} is no decimal type"), "write DECIMAL(p, s) with p up to 38 and s up to p".into())),
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
            let field = |field: &ast::StructField| match &field.field_name {
                Some(name) => Ok((normal(name), column_type(&field.field_type)?)),
                None => Err(("a field of a STRUCT needs a name".to_string(), "write STRUCT<name TYPE, …>".to_string())),
            };
            fields.iter().map(field).collect::<Result<Vec<_>, _>>().map(Type::Struct)
        }
        _ => Err((
            format!("the type {sql} is not supported"),
            "use BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, JSON, STRUCT<…> or T[]".to_string(),
        )),
    }
}
