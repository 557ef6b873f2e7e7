//! Pipeline SQL: `CREATE TABLE … WATERMARK … WITH (…)` and `CREATE MATERIALIZED VIEW … AS SELECT …`.
//!
//! Parsed with DataFusion's own parser; the column list is walked here, for the parser has no `WATERMARK`.

mod place;
mod source;
mod types;

use std::path::Path;

use datafusion::sql::sqlparser::ast::{
    self, CreateTableOptions, CreateView, Expr, Ident, Query, Spanned, SqlOption, Statement,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub use place::Place;
use source::{Reader, SOURCE, parse_interval_us};

use crate::error::PipelineError;
use crate::schema::Source;

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
    /// How long groups stay, by the view's time column, before the watermark at the boundary. None: for ever.
    pub retention_us: Option<i64>,
    /// The options as they were written, normalised; none where there are none.
    pub options: Option<String>,
    /// Where it stands, for errors found later.
    pub place: Place,
}

impl ViewText {
    /// The view's text as it is stored: its options, and the SELECT as the parser writes it.
    pub fn sql(&self) -> String {
        match &self.options {
            None => self.query.to_string(),
            Some(options) => format!("{options} AS {}", self.query),
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

/// How large a record may be that is decoded. A part of what a source is.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimits {
    /// The most bytes.
    pub bytes: u64,
    /// The most elements. None: as many as there are.
    pub elements: Option<u64>,
}

impl From<u64> for RecordLimits {
    fn from(bytes: u64) -> Self {
        Self { bytes, elements: None }
    }
}

/// Reads a file, or all `*.sql` of a folder in order of name.
///
/// # Errors
/// A file that cannot be read, or the first mistake in it.
pub fn read(path: &Path, limits: impl Into<RecordLimits>) -> Result<Pipeline, ReadError> {
    let limits = limits.into();
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
        parse_into(&mut pipeline, &file.display().to_string(), &text, limits)?;
    }
    Ok(pipeline)
}

/// Parses one text.
///
/// # Errors
/// The first mistake in it.
pub fn parse(file: &str, text: &str, limits: impl Into<RecordLimits>) -> Result<Pipeline, PipelineError> {
    let mut pipeline = Pipeline::default();
    parse_into(&mut pipeline, file, text, limits.into())?;
    Ok(pipeline)
}

fn parse_into(pipeline: &mut Pipeline, file: &str, text: &str, limits: RecordLimits) -> Result<(), PipelineError> {
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
        statement(pipeline, place, limits)?;
    }
    Ok(())
}

/// What a pipeline holds, for hints.
const STATEMENTS: &str =
    "a pipeline holds CREATE TABLE … WITH (connector = 'kafka', …) and CREATE MATERIALIZED VIEW … AS SELECT …";
const VIEW: &str =
    "a view is CREATE MATERIALIZED VIEW name [WITH (retention = '30 days')] AS SELECT … FROM source WHERE … GROUP BY …";
const ONE_NAME: &str = "give every source and every view a name of its own";

fn statement(pipeline: &mut Pipeline, place: Place, limits: RecordLimits) -> Result<(), PipelineError> {
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(place.tokens.clone());
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE]) {
        let (source, named) = Reader { place: &place, parser: &mut parser, form: SOURCE }.source(limits)?;
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
            let (retention_us, options) = view_options(&place, &view)?;
            pipeline.views.push(ViewText { name, query: view.query, retention_us, options, place: place.clone() });
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
    let options = !matches!(view.options, CreateTableOptions::None | CreateTableOptions::With(_))
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
            format!("view {name:?} has options that a view does not take"),
            Some(VIEW.to_string()),
        ));
    }
    if pipeline.views.iter().any(|known| known.name == name) || pipeline.sources.iter().any(|known| known.name == name)
    {
        return Err(place.error(at, format!("{name:?} is declared twice"), Some(ONE_NAME.to_string())));
    }
    Ok(name)
}

/// `WITH (retention = '30 days')`: the retention, and the clause as it is stored.
fn view_options(place: &Place, view: &CreateView) -> Result<(Option<i64>, Option<String>), PipelineError> {
    const RETENTION: &str = "a view takes one option: WITH (retention = '30 days')";
    let CreateTableOptions::With(options) = &view.options else { return Ok((None, None)) };
    let refuse = |at, message: String| Err(place.error(at, message, Some(RETENTION.to_string())));
    let [SqlOption::KeyValue { key, value }] = &options[..] else {
        return refuse(place.options(), "these options are not a view's".to_string());
    };
    if normal(key) != "retention" {
        return refuse(key.span.start, format!("there is no option {:?} of a view", key.value));
    }
    let text = match value {
        Expr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    match text.as_deref().and_then(parse_interval_us).filter(|retention| *retention > 0) {
        Some(retention) => {
            let text = text.unwrap_or_default();
            Ok((Some(retention), Some(format!("WITH (retention = '{text}')"))))
        }
        None => refuse(key.span.start, format!("retention cannot be {value}")),
    }
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
