//! Pipeline SQL: `CREATE TABLE … WATERMARK … WITH (…)` and `CREATE MATERIALIZED VIEW … AS SELECT …`.
//!
//! Parsed with DataFusion's own parser; the column list is walked here, for the parser has no `WATERMARK`.

use std::path::Path;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CreateTableOptions, CreateView, DataType as SqlType, ExactNumberInfo, Expr, Ident, Query,
    Spanned, Statement, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

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
    /// The first of `words` in the view's SELECT, as it is written there, and where: first one that is called, `word(`,
    /// else any.
    pub(crate) fn find(&self, words: &[&str]) -> Option<(String, Location)> {
        let is_word = |word: &Word| words.iter().any(|w| word.value.eq_ignore_ascii_case(w));
        let (mut called, mut named) = (None, None);
        for (i, (token, _)) in self.body().enumerate() {
            if let Token::Word(word) = &token.token
                && is_word(word)
            {
                let found = (word.value.clone(), token.span.start);
                match self.body().nth(i + 1) {
                    Some((next, _)) if next.token == Token::LParen => called = called.or(Some(found)),
                    _ => named = named.or(Some(found)),
                }
            }
        }
        called.or(named)
    }

    /// Where a clause of the view's SELECT begins: the first of `words` that stands outside all parentheses; else where
    /// the SELECT begins.
    pub(crate) fn clause(&self, words: &[&str]) -> Location {
        let is_clause = |(token, depth): &(&TokenWithSpan, i32)| match &token.token {
            Token::Word(word) => {
                *depth == 0 && word.quote_style.is_none() && words.iter().any(|w| word.value.eq_ignore_ascii_case(w))
            }
            Token::VerticalBarRightAngleBracket => *depth == 0 && words.contains(&"|>"),
            _ => false,
        };
        let found = self.body().find(is_clause).or_else(|| self.body().next());
        found.map_or_else(|| self.start(), |(token, _)| token.span.start)
    }

    /// What stands after the first AS, without white space, and how deep in parentheses it stands.
    fn body(&self) -> impl Iterator<Item = (&TokenWithSpan, i32)> {
        let is_as = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == Keyword::AS);
        let start = self.tokens.iter().position(is_as).map_or(0, |at| at + 1);
        let mut depth = 0;
        self.tokens[start..].iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).map(move |token| {
            depth += i32::from(token.token == Token::LParen) - i32::from(token.token == Token::RParen);
            (token, depth)
        })
    }

    /// Where the statement begins.
    pub(crate) fn start(&self) -> Location {
        let first = self.tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)));
        first.map_or(Location::new(1, 1), |token| token.span.start)
    }

    /// An error at a line and a column; at the statement's start if the place is not known.
    pub(crate) fn error(&self, at: Location, message: impl Into<String>, hint: Option<String>) -> PipelineError {
        let at = if at.line == 0 { self.start() } else { at };
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
    let tokens = tokens.map_err(|e| {
        let hint = "texts stand in '…', names in \"…\", comments in /* … */";
        all.error(e.location, lower(&e.message), Some(hint.to_string()))
    })?;
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        if tokens.iter().all(|token| matches!(token.token, Token::Whitespace(_) | Token::EOF)) {
            continue;
        }
        let place = Place { tokens: tokens.to_vec(), ..all.clone() };
        statement(pipeline, place, max_record)?;
    }
    Ok(())
}

/// What a pipeline holds, for hints.
const STATEMENTS: &str =
    "a pipeline holds CREATE TABLE … WITH (connector = 'kafka', …) and CREATE MATERIALIZED VIEW … AS SELECT …";
const SOURCE: &str = "a source is CREATE TABLE name (column TYPE, …, WATERMARK FOR column AS column - INTERVAL \
                      '10 seconds') WITH (connector = 'kafka', topic = '…', format = 'json')";
const VIEW: &str = "a view is CREATE MATERIALIZED VIEW name AS SELECT … FROM source WHERE … GROUP BY …";
const ONE_NAME: &str = "give every source and every view a name of its own";

fn statement(pipeline: &mut Pipeline, place: Place, max_record: u64) -> Result<(), PipelineError> {
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(place.tokens.clone());
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE]) {
        let (source, named) = Reader { place: &place, parser: &mut parser, form: SOURCE }.source(max_record)?;
        let twice = pipeline.sources.iter().any(|known| known.name == source.name)
            || pipeline.views.iter().any(|known| known.name == source.name);
        if twice {
            let message = format!("{:?} is declared twice", source.name);
            return Err(place.error(named.name, message, Some(ONE_NAME.to_string())));
        }
        let taken =
            pipeline.sources.iter().find(|known| known.topics.iter().any(|topic| source.topics.contains(topic)));
        if let Some(taken) = taken {
            let message = format!("a topic of source {:?} is already read by source {:?}", source.name, taken.name);
            return Err(place.error(named.topic, message, Some("one source may feed many views".into())));
        }
        pipeline.sources.push(source);
        return Ok(());
    }
    let is_view = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == Keyword::VIEW);
    let words = place.tokens.iter().filter(|token| matches!(token.token, Token::Word(_)));
    let form = if words.take(5).any(is_view) { VIEW } else { STATEMENTS };
    let reader = Reader { place: &place, parser: &mut parser, form };
    let parsed = reader.parser.parse_statement();
    let parsed =
        parsed.and_then(|s| reader.parser.expect_token(&Token::EOF).map(|_| s)).map_err(|e| reader.wrong(e))?;
    match parsed {
        Statement::CreateView(view) if view.materialized => {
            let name = view_name(pipeline, &place, &view)?;
            pipeline.views.push(ViewText { name, query: view.query, place: place.clone() });
            Ok(())
        }
        Statement::CreateView(_) => {
            let hint = Some("write CREATE MATERIALIZED VIEW: bifold keeps every view up to date".to_string());
            Err(place.error(place.start(), "a plain view is not supported", hint))
        }
        _ => Err(place.error(place.start(), "this statement has no place in a pipeline", Some(STATEMENTS.to_string()))),
    }
}

/// The name of a view that is declared as a view can be.
fn view_name(pipeline: &Pipeline, place: &Place, view: &CreateView) -> Result<String, PipelineError> {
    let name = simple_name(place, &view.name)?;
    let at = view.name.span().start;
    if let Some(column) = view.columns.first() {
        let hint = Some("name columns with AS in the SELECT".to_string());
        return Err(place.error(column.name.span.start, "a view has no column list", hint));
    }
    let options = view.options != CreateTableOptions::None
        || view.to.is_some()
        || view.params.is_some()
        || view.comment.is_some()
        || !view.cluster_by.is_empty()
        || view.with_no_schema_binding
        || view.temporary
        || view.secure
        || view.copy_grants;
    if options {
        return Err(place.error(
            at,
            format!("view {name:?} has options, but a view takes none"),
            Some(VIEW.to_string()),
        ));
    }
    if pipeline.views.iter().any(|known| known.name == name) || pipeline.sources.iter().any(|known| known.name == name)
    {
        return Err(place.error(at, format!("{name:?} is declared twice"), Some(ONE_NAME.to_string())));
    }
    Ok(name)
}

fn simple_name(place: &Place, name: &ast::ObjectName) -> Result<String, PipelineError> {
    let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    match parts[..] {
        [ident] if !normal(ident).contains('/') && !normal(ident).is_empty() => Ok(normal(ident)),
        _ => {
            let hint = Some("a name is one word, or any text without / in double quotes".to_string());
            Err(place.error(name.span().start, format!("{name} is not a simple name"), hint))
        }
    }
}

/// Unquoted names are lower case, as in PostgreSQL.
pub(crate) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// A message without a capital at its start and a full stop at its end.
pub(crate) fn lower(message: &str) -> String {
    let message = message.trim_end_matches('.');
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => message.to_string(),
    }
}

struct Reader<'a, 'b> {
    place: &'a Place,
    parser: &'a mut Parser<'b>,
    /// What the statement should look like, for hints.
    form: &'static str,
}

/// Where the parts of a source stand that others may contradict.
struct Named {
    name: Location,
    topic: Location,
}

const END: &str = "the end of the statement";

fn end_or(token: &Token) -> String {
    if *token == Token::EOF { END.to_string() } else { token.to_string() }
}

/// Where each option stands.
type Options = Vec<(String, Location)>;

impl Reader<'_, '_> {
    /// The parser's error at the place it names, else where the parser stands.
    fn wrong(&self, error: ParserError) -> PipelineError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_string(),
        };
        let (message, at) = match message.rsplit_once(" at Line: ") {
            Some((message, at)) => (message, at.split_once(", Column: ")),
            None => (&*message, None),
        };
        let at = at.and_then(|(line, column)| Some(Location::new(line.parse().ok()?, column.parse().ok()?)));
        let end = |token: &str| if token == "EOF" { END.to_string() } else { token.to_string() };
        let expected = message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: "));
        let hint = match expected {
            Some(("EOF", _)) => "statements are separated by semicolons: is one missing?",
            _ => self.form,
        };
        let message = match expected {
            Some((expected, found)) => format!("expected {}, found {}", end(expected), end(found)),
            None => lower(message),
        };
        self.place.error(at.unwrap_or_else(|| self.here()), message, Some(hint.to_string()))
    }

    /// Where the parser stands: before the next token, or behind the last one.
    fn here(&self) -> Location {
        let here = self.parser.peek_token().span.start;
        let last = self.place.tokens.iter().rfind(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
        if here.line == 0 { last.map_or(here, |token| token.span.end) } else { here }
    }

    fn source(&mut self, max_record: u64) -> Result<(Source, Named), PipelineError> {
        let _ = self.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name_at = self.here();
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
                        let hint = Some("the column of the one WATERMARK is the event time".to_string());
                        return Err(self.place.error(next.span.start, "a source has only one WATERMARK", hint));
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
        let options = self.options(&mut source)?;
        self.parser.expect_token(&Token::EOF).map_err(|e| self.wrong(e))?;
        if let Some((column, delay_us, at)) = watermark {
            self.check_event_time(&source, &column, at)?;
            source.event_time = Some(column);
            source.watermark_delay_us = delay_us;
        }
        self.check_bounds(&source, &options)?;
        let topic = options.iter().find(|(name, _)| name == "topic").map_or(name_at, |(_, at)| *at);
        Ok((source, Named { name: name_at, topic }))
    }

    fn check_event_time(&self, source: &Source, column: &str, at: Location) -> Result<(), PipelineError> {
        let (message, hint) = match source.columns.iter().find(|known| known.name == column) {
            Some(known) if known.ty == Type::Timestamp => return Ok(()),
            Some(known) => {
                let message = format!("the WATERMARK is for {column:?}, which is {}", known.ty);
                (message, format!("declare {column:?} as TIMESTAMP, or name a column that is one"))
            }
            None => {
                let cased = source.columns.iter().find(|known| known.name.eq_ignore_ascii_case(column));
                let near = |known: &&Column| strsim::damerau_levenshtein(&known.name, column);
                let hint = match (cased, source.columns.iter().min_by_key(near)) {
                    (Some(known), _) => format!("names are case-sensitive: write {:?} in double quotes", known.name),
                    (None, Some(known)) => format!("the nearest column is {:?}", known.name),
                    (None, None) => format!("declare {column:?} as TIMESTAMP"),
                };
                (format!("the WATERMARK is for {column:?}, which is no column of this table"), hint)
            }
        };
        Err(self.place.error(at, message, Some(hint)))
    }

    fn check_bounds(&self, source: &Source, options: &Options) -> Result<(), PipelineError> {
        let bound = options.iter().find(|(name, _)| name.starts_with("event_time_"));
        if let (Some((name, at)), None) = (bound, &source.event_time) {
            let hint = "declare the event time: WATERMARK FOR column AS column - INTERVAL '10 seconds'";
            return Err(self.place.error(*at, format!("{name} bounds no event time"), Some(hint.to_string())));
        }
        if let (Some(min), Some(max)) = (source.event_time_min_us, source.event_time_max_us)
            && min > max
        {
            let at = options.iter().rfind(|(name, _)| name == "event_time_min" || name == "event_time_max");
            let at = at.map_or(Location::new(0, 0), |(_, at)| *at);
            let hint = Some("as it stands, no event can be in bounds".to_string());
            return Err(self.place.error(at, "event_time_min is after event_time_max", hint));
        }
        Ok(())
    }

    fn column(&mut self, source: &mut Source) -> Result<(), PipelineError> {
        let at = self.parser.peek_token().span.start;
        if self.parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            let hint = Some("a source is a stream of events: leave the key out".to_string());
            return Err(self.place.error(at, "a source has no PRIMARY KEY", hint));
        }
        let definition = self.parser.parse_column_def().map_err(|e| self.wrong(e))?;
        let name = normal(&definition.name);
        if let Some(option) = definition.options.first() {
            let hint = Some("a column has a name and a type; a missing or null value is NULL".to_string());
            return Err(self.place.error(at, format!("column {name:?} has the option {}", option.option), hint));
        }
        if RESERVED.contains(&name.as_str()) {
            let hint = Some("every event has this column already; give the declared one another name".to_string());
            return Err(self.place.error(at, format!("the name {name:?} is reserved for the log's own columns"), hint));
        }
        if source.columns.iter().any(|known| known.name == name) {
            let hint = Some("names differ by case only if they stand in double quotes".to_string());
            return Err(self.place.error(at, format!("column {name:?} is declared twice"), hint));
        }
        let ty = column_type(&definition.data_type).map_err(|wrong| {
            let is_type = |token: &&TokenWithSpan| match &token.token {
                Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(&wrong.word),
                _ => false,
            };
            let found = self.place.tokens.iter().filter(|token| token.span.start > at).find(is_type);
            self.place.error(found.map_or(at, |token| token.span.start), wrong.message, Some(wrong.hint))
        })?;
        source.columns.push(Column { name, ty });
        Ok(())
    }

    /// `WATERMARK FOR column AS column [- INTERVAL '…']`: the column, the delay in microseconds and the place.
    fn watermark(&mut self) -> Result<(String, i64, Location), PipelineError> {
        self.parser.next_token();
        if !self.parser.parse_keyword(Keyword::FOR) {
            let hint = "write WATERMARK FOR column AS column; a column of that name stands in quotes: \"watermark\"";
            return Err(self.place.error(self.here(), "expected FOR after WATERMARK", Some(hint.to_string())));
        }
        let at = self.parser.peek_token().span.start;
        let ident = self.parser.parse_identifier().map_err(|e| self.wrong(e))?;
        let column = normal(&ident);
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
                let hint = format!("write AS {ident} or AS {ident} - INTERVAL '10 seconds'");
                Err(self.place.error(delay_at, "this watermark is not understood", Some(hint)))
            }
        }
    }

    fn options(&mut self, source: &mut Source) -> Result<Options, PipelineError> {
        let at = self.here();
        let hint = || Some("WITH (connector = 'kafka', topic = '…', format = 'json')".to_string());
        if !self.parser.parse_keyword(Keyword::WITH) {
            return Err(self.place.error(at, "a source needs WITH (…)", hint()));
        }
        self.parser.expect_token(&Token::LParen).map_err(|e| self.wrong(e))?;
        let mut options: Options = vec![];
        while !self.parser.consume_token(&Token::RParen) {
            let at = self.here();
            let name = self.parser.parse_identifier().map_err(|e| self.wrong(e))?.value.to_lowercase();
            self.parser.expect_token(&Token::Eq).map_err(|e| self.wrong(e))?;
            let value_at = self.here();
            let value = match self.parser.next_token().token {
                Token::SingleQuotedString(text) => text,
                other => {
                    let message = format!("the value of {name} is no text: {}", end_or(&other));
                    let hint = Some(format!("write it in single quotes: {name} = '…'"));
                    return Err(self.place.error(value_at, message, hint));
                }
            };
            if options.iter().any(|(known, _)| *known == name) {
                let hint = Some("leave one of them out".to_string());
                return Err(self.place.error(at, format!("the option {name} stands here twice"), hint));
            }
            self.option(source, (&name, at), (&value, value_at))?;
            options.push((name, at));
            if !self.parser.consume_token(&Token::Comma) {
                self.parser.expect_token(&Token::RParen).map_err(|e| self.wrong(e))?;
                break;
            }
        }
        for needed in ["connector", "topic"] {
            if !options.iter().any(|(name, _)| name == needed) {
                return Err(self.place.error(at, format!("the option {needed} is missing"), hint()));
            }
        }
        Ok(options)
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
                let good = |topic: &String| {
                    !matches!(&**topic, "" | "." | "..") && topic.len() <= 249 && topic.chars().all(legal)
                };
                let mut distinct = source.topics.clone();
                distinct.sort();
                distinct.dedup();
                if !source.topics.iter().all(good) || distinct.len() != source.topics.len() {
                    return Err(wrong(
                        "name one topic, or several that differ, separated by commas; \
                         a topic's name has letters, digits, '.', '_' and '-'",
                    ));
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
                let ahead = parse_interval_us(value)
                    .ok_or_else(|| wrong("write a duration with its unit, such as '90s' or '1 hour'"))?;
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
                let hint = nearest.map(|nearest| format!("the nearest option is {nearest}"));
                return Err(self.place.error(name_at, format!("there is no option {name:?}"), hint));
            }
        }
        Ok(())
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

/// A type that no column can have.
struct WrongType {
    /// The word to point at.
    word: String,
    message: String,
    hint: String,
}

/// The type that SQL names; else what is wrong and what to do.
fn column_type(sql: &SqlType) -> Result<Type, WrongType> {
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
