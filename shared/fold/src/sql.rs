//! SQL text as bifold means it, where DataFusion's parser and planner mean something else.
//!
//! [`prepare`] corrects a parsed statement before it is planned; [`unmarked`] takes out of the plan what [`prepare`] put
//! in for the planner. Both are part of a dialect: statements of the first dialect are planned as they were parsed.
//!
//! - `precedence`: operators bind as in PostgreSQL
//! - `casts`: two expressions that differ by a CAST are two columns
//! - `rows`: rows are compared column by column
//! - `similar`: SIMILAR TO with SQL's meaning
//! - `numbers`: numbers that no decimal holds are doubles

mod casts;
mod numbers;
mod precedence;
mod rows;
mod similar;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Location;

pub(crate) use casts::marker;
pub use casts::unmarked;

pub use crate::exact::numbers::meet_exactly;

/// A part of a statement that has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unclear {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
    /// Where it stands; line 0 where the parser does not know.
    pub at: Location,
}

/// Corrects a statement, or a part of one, so that its plan means what PostgreSQL's would.
///
/// # Errors
/// The first expression that has no meaning.
pub fn prepare<T: VisitMut>(statement: &mut T) -> Result<(), Unclear> {
    // Expressions are in order before anything else is read in them.
    let _ = statement.visit(&mut Order);
    match statement.visit(&mut Corrections) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(unclear) => Err(unclear),
    }
}

/// Puts operators in order, from the innermost expression to the outermost.
struct Order;

impl VisitorMut for Order {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        precedence::correct(expr);
        ControlFlow::Continue(())
    }
}

/// Corrects expressions from the innermost to the outermost.
struct Corrections;

impl VisitorMut for Corrections {
    type Break = Unclear;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Unclear> {
        numbers::correct(expr);
        casts::mark(expr);
        match rows::correct(expr).and_then(|()| similar::correct(expr)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(unclear) => ControlFlow::Break(unclear),
        }
    }
}
