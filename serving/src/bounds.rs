//! How large a query may be before anybody plans it: planning takes the square of some of these.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, ObjectName, Query, Select, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::problem::Problem;

/// The longest name, in bytes.
const NAME: usize = 1_024;
/// Expressions within each other; a chain of n operators is n deep.
const DEPTH: usize = 1_000;
/// The same as a text shows it: a comparison beside an AND counts for two there.
const TEXT_DEPTH: usize = 3 * DEPTH;
/// Expressions in all.
const EXPRESSIONS: usize = 50_000;
/// Tables, each WITH counted as often as it is read.
const TABLES: u64 = 1_000;
/// Sets that CUBE, ROLLUP and GROUPING SETS make of one GROUP BY.
const SETS: u64 = 128;

/// Refuses a query that is too large to be planned in a moment.
///
/// # Errors
/// [`Problem::limit`], naming what there is too much of.
pub(crate) fn check(statement: &Statement) -> Result<(), Problem> {
    match statement.visit(&mut Bounds::default()) {
        ControlFlow::Break(problem) => Err(problem),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses a text whose expressions go so deep that even parsing it, and letting go of what was parsed, takes a stack of a hundred
/// megabytes. What this lets through, [`check`] judges exactly.
///
/// # Errors
/// [`Problem::limit`].
pub(crate) fn check_text(sql: &str) -> Result<(), Problem> {
    // What cannot be read as tokens, the parser says better.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    // The operators since the last comma, in each parenthesis that is open.
    let (mut levels, mut below, mut sets) = (vec![], 0usize, 0usize);
    let mut here = 0usize;
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket => {
                levels.push(here + 1);
                below += here + 1;
                here = 0;
            }
            Token::RParen | Token::RBracket => {
                here = levels.pop().unwrap_or(0);
                below = below.saturating_sub(here);
            }
            Token::Comma | Token::SemiColon => here = 0,
            Token::Word(word) => match word.keyword {
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::HAVING | Keyword::ON | Keyword::GROUP => {
                    here = 0
                }
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => sets += 1,
                Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::LIKE | Keyword::CASE => here += 1,
                Keyword::BETWEEN | Keyword::ILIKE | Keyword::COLLATE | Keyword::AT | Keyword::IN => here += 1,
                _ => {}
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => here += 1,
        }
        if below + here > TEXT_DEPTH || sets > DEPTH {
            let hint = "ask for less at once";
            return Err(Problem::limit(format!(
                "the query has more than {DEPTH} expressions within each other; {hint}"
            )));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Bounds {
    depth: usize,
    expressions: usize,
    /// Tables of the queries that are being visited, the innermost last.
    tables: Vec<u64>,
    /// The queries of WITH, by where they stand, and their names.
    with: HashMap<*const Query, String>,
    /// How many tables each name of a WITH stands for.
    sizes: HashMap<String, u64>,
}

fn too_many(what: &str, most: impl std::fmt::Display, hint: &str) -> ControlFlow<Problem> {
    ControlFlow::Break(Problem::limit(format!("the query has more than {most} {what}; {hint}")))
}

fn name_of(relation: &ObjectName) -> String {
    relation.to_string()
}

impl Visitor for Bounds {
    type Break = Problem;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Problem> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.with.insert(&raw const *cte.query, cte.alias.name.to_string());
        }
        self.tables.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Problem> {
        // One without a table is planned, too.
        let tables = self.tables.pop().unwrap_or(0).max(1);
        if tables > TABLES {
            return too_many("tables", TABLES, "a WITH counts as often as it is read");
        }
        if let Some(name) = self.with.remove(&std::ptr::from_ref(query)) {
            self.sizes.insert(name, tables);
        } else if let Some(outer) = self.tables.last_mut() {
            *outer += tables;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Problem> {
        let name = name_of(relation);
        if name.len() > NAME {
            return too_many("bytes in a name", NAME, "choose a shorter one");
        }
        let size = self.sizes.get(&name).copied().unwrap_or(1);
        if let Some(tables) = self.tables.last_mut() {
            *tables = tables.saturating_add(size);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Problem> {
        let sets = |expr: &Expr| match expr {
            Expr::Cube(of) => 1u64.checked_shl(of.len() as u32).unwrap_or(u64::MAX),
            Expr::Rollup(of) => of.len() as u64 + 1,
            Expr::GroupingSets(of) => of.len() as u64,
            _ => 1,
        };
        if let GroupByExpr::Expressions(by, _) = &select.group_by
            && by.iter().map(sets).fold(1, u64::saturating_mul) > SETS
        {
            return too_many("grouping sets", SETS, "ask for fewer of them at a time");
        }
        let too_long = |name: &str| name.len() > NAME;
        let aliases = select.projection.iter().filter_map(|item| match item {
            datafusion::sql::sqlparser::ast::SelectItem::ExprWithAlias { alias, .. } => Some(alias),
            _ => None,
        });
        match aliases.into_iter().any(|alias| too_long(&alias.value)) {
            true => too_many("bytes in a name", NAME, "choose a shorter one"),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Problem> {
        self.depth += 1;
        self.expressions += 1;
        if self.depth > DEPTH {
            return too_many("expressions within each other", DEPTH, "write many alternatives as x IN (…)");
        }
        if self.expressions > EXPRESSIONS {
            return too_many("expressions", EXPRESSIONS, "ask in parts");
        }
        match expr {
            Expr::Identifier(name) if name.value.len() > NAME => {
                too_many("bytes in a name", NAME, "choose a shorter one")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Problem> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn judged(sql: &str) -> Option<String> {
        let statements = Parser::parse_sql(&GenericDialect {}, sql).expect("it is SQL");
        check(&statements[0]).err().map(|problem| problem.detail().to_string())
    }

    fn doubling(times: usize) -> String {
        let mut sql = "WITH a0 AS (SELECT 1 AS x)".to_string();
        for i in 1..=times {
            sql += &format!(", a{i} AS (SELECT l.x FROM a{} l, a{} r)", i - 1, i - 1);
        }
        format!("{sql} SELECT * FROM a{times}")
    }

    #[test]
    fn what_people_write_is_within_the_bounds() {
        for sql in [
            "SELECT a, count(*) AS n FROM v WHERE b = 1 OR c IN (SELECT d FROM w) GROUP BY CUBE (a, b, c, d, e, f, g) ORDER BY 1"
                .to_string(),
            format!("SELECT * FROM v WHERE a IN ({})", vec!["1"; 5_000].join(", ")),
            format!("SELECT * FROM v WHERE {}", vec!["a = 1"; 900].join(" OR ")),
            vec!["SELECT a FROM v"; 300].join(" UNION ALL "),
            "WITH a AS (SELECT 1 AS x), b AS (SELECT * FROM a, a c) SELECT * FROM (SELECT * FROM b) d".to_string(),
            doubling(9),
        ] {
            assert_eq!(judged(&sql), None, "{}", &sql[..60]);
        }
    }

    #[test]
    fn what_would_be_planned_for_minutes_is_refused() {
        let cube = (0..20).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
        for (sql, words) in [
            (format!("SELECT {} AS x FROM v", vec!["n"; 2_000].join("+")), "expressions within each other"),
            (format!("SELECT count(*) FROM v GROUP BY CUBE ({cube})"), "grouping sets"),
            (
                format!("SELECT count(*) FROM v GROUP BY ROLLUP ({cube}), CUBE (a, b, c, d, e, f, g, h)"),
                "grouping sets",
            ),
            (doubling(24), "tables"),
            (format!("SELECT {} FROM v", "x".repeat(60_000)), "bytes in a name"),
            (format!("SELECT a AS {} FROM v", "x".repeat(60_000)), "bytes in a name"),
            (format!("SELECT a FROM {}", "x".repeat(60_000)), "bytes in a name"),
        ] {
            assert!(judged(&sql).is_some_and(|said| said.contains(words)), "{words}: {:?}", judged(&sql));
        }
    }
}
