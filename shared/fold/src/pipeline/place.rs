//! Where a statement stands, and where in it something stands.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};

use crate::error::PipelineError;

/// A statement's place in its file.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) file: String,
    pub(super) text: std::sync::Arc<str>,
    pub(super) tokens: Vec<TokenWithSpan>,
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

    /// Where the options of a view stand; else where the statement begins.
    pub(crate) fn options(&self) -> Location {
        let is_with =
            |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == Keyword::WITH);
        self.tokens.iter().find(is_with).map_or_else(|| self.start(), |token| token.span.start)
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
