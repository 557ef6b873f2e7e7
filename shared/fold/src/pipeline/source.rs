//! `CREATE TABLE name (column TYPE, …, WATERMARK FOR …) WITH (…)`, read token by token.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::types::column_type;
use super::{Place, RecordLimits, lower, normal, simple_name};
use crate::decode::parse_timestamp;
use crate::dedup::DedupBy;
use crate::error::PipelineError;
use crate::schema::{Column, RESERVED, Source, TimestampUnit, Type};

/// What a source looks like, for hints.
pub(super) const SOURCE: &str = "a source is CREATE TABLE name (column TYPE, …, WATERMARK FOR column AS column - INTERVAL \
                      '10 seconds') WITH (connector = 'kafka', topic = '…', format = 'json')";

/// Reads a statement, and says what is wrong with it.
pub(super) struct Reader<'a, 'b> {
    pub(super) place: &'a Place,
    pub(super) parser: &'a mut Parser<'b>,
    /// What the statement should look like, for hints.
    pub(super) form: &'static str,
}

/// Where the parts of a source stand that others may contradict.
pub(super) struct Named {
    pub(super) name: Location,
    pub(super) topic: Location,
}

const END: &str = "the end of the statement";

fn end_or(token: &Token) -> String {
    if *token == Token::EOF { END.to_string() } else { token.to_string() }
}

/// What `dedup` and `dedup_lookback` are where they are not said.
const NO_DEDUP: DedupBy = DedupBy { columns: vec![], lookback: 1_000_000 };

/// Where each option stands.
type Options = Vec<(String, Location)>;

impl Reader<'_, '_> {
    /// The parser's error at the place it names, else where the parser stands.
    pub(super) fn wrong(&self, error: ParserError) -> PipelineError {
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

    pub(super) fn source(&mut self, limits: RecordLimits) -> Result<(Source, Named), PipelineError> {
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
            max_record: limits.bytes,
            max_elements: limits.elements,
            quoted_numbers: true,
            dedup: None,
            archive_retention_us: None,
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
        self.check_dedup(&source, &options)?;
        let retention = options.iter().find(|(name, _)| name == "archive_retention");
        if let (None, Some((_, at))) = (&source.event_time, retention) {
            let hint = Some("declare it: WATERMARK FOR time AS time - INTERVAL '10 seconds'".to_string());
            let message = "archive_retention goes by event time, and this table has none";
            return Err(self.place.error(*at, message, hint));
        }
        if let Some((_, at)) = retention
            && source.event_time_max_ahead_us.or(source.event_time_max_us).is_none()
        {
            let hint = Some("bound event times: event_time_max_ahead = '1 hour'".to_string());
            let message = "with archive_retention one event from the far future would remove the whole archive";
            return Err(self.place.error(*at, message, hint));
        }
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

    fn check_dedup(&self, source: &Source, options: &Options) -> Result<(), PipelineError> {
        let at = |name: &str| options.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
        let Some(by) = &source.dedup else { return Ok(()) };
        if let (None, Some(at)) = (at("dedup"), at("dedup_lookback")) {
            let hint = Some("name the columns that tell rows apart: dedup = 'event_id'".to_string());
            return Err(self.place.error(at, "dedup_lookback says how far to look, but not for what", hint));
        }
        let declared = |name: &&String| !source.columns.iter().any(|column| column.name == **name);
        match by.columns.iter().find(declared) {
            Some(name) => {
                let near = |known: &&Column| strsim::damerau_levenshtein(&known.name, name);
                let hint = source
                    .columns
                    .iter()
                    .min_by_key(near)
                    .map(|known| format!("the nearest column is {:?}", known.name));
                let at = at("dedup").unwrap_or(Location::new(0, 0));
                Err(self.place.error(at, format!("dedup names {name:?}, which is no column of this table"), hint))
            }
            None => Ok(()),
        }
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
                    "auto" => TimestampUnit::Auto,
                    _ => return Err(wrong("the unit is 's', 'ms', 'us', 'ns', or 'auto', which goes by the size")),
                });
            }
            "quoted_numbers" => {
                source.quoted_numbers = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(wrong("write 'true' or 'false'")),
                };
            }
            "dedup" => {
                let columns: Vec<String> = value.split(',').map(|name| name.trim().to_string()).collect();
                let mut distinct = columns.clone();
                distinct.sort();
                distinct.dedup();
                if distinct.len() != columns.len() || columns.iter().any(String::is_empty) {
                    return Err(wrong("name a column, or several that differ, separated by commas"));
                }
                source.dedup.get_or_insert(NO_DEDUP).columns = columns;
            }
            "dedup_lookback" => {
                let offsets = value.replace('_', "").parse::<i64>().ok().filter(|offsets| *offsets >= 0);
                let offsets = offsets.ok_or_else(|| wrong("write how many offsets to look back, such as '1000000'"))?;
                source.dedup.get_or_insert(NO_DEDUP).lookback = offsets;
            }
            "event_time_min" => source.event_time_min_us = Some(time()?),
            "event_time_max" => source.event_time_max_us = Some(time()?),
            "event_time_max_ahead" => {
                let ahead = parse_interval_us(value)
                    .ok_or_else(|| wrong("write a duration with its unit, such as '90s' or '1 hour'"))?;
                source.event_time_max_ahead_us = Some(ahead);
            }
            "archive_retention" => {
                let retention = parse_interval_us(value).filter(|retention| *retention > 0);
                let retention = retention.ok_or_else(|| wrong("write a duration with its unit, such as '90 days'"))?;
                source.archive_retention_us = Some(retention);
            }
            _ => {
                const NAMES: [&str; 11] = [
                    "archive_retention",
                    "connector",
                    "topic",
                    "format",
                    "timestamp_unit",
                    "quoted_numbers",
                    "event_time_min",
                    "event_time_max",
                    "event_time_max_ahead",
                    "dedup",
                    "dedup_lookback",
                ];
                let longer = NAMES.iter().find(|known| known.split('_').any(|part| part == name));
                let nearest =
                    longer.or_else(|| NAMES.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name)));
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
pub(super) fn parse_interval_us(text: &str) -> Option<i64> {
    let interval = parse_interval_month_day_nano(text).ok()?;
    let days_us = i64::from(interval.days).checked_mul(86_400_000_000)?;
    let total = days_us.checked_add(interval.nanoseconds / 1_000)?;
    (interval.months == 0 && total >= 0).then_some(total)
}
