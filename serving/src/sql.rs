//! Read-only SQL over finished views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bifold_fold::buffers::Buffers;
use bifold_fold::memory::OTHERS;
use bifold_fold::{Engine, readable};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::DataFrame;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use futures::StreamExt;
use serde_json::json;
use tokio::task::JoinError;

use crate::catalog::Catalog;
use crate::clauses::passed_over;
use crate::problem::Problem;
use crate::snapshot::{AtLeast, ViewAnswer, answer};
use crate::sum::{Overflow, sum};
use crate::threads::{apart, while_awaited};
use crate::warnings::Warning;
use crate::{bounds, collected, subqueries, warnings};

/// The longest query: planning recurses once per operator of a chain, and the stack is finite.
const MOST_BYTES: usize = 64 << 10;

/// An answer to a query.
#[derive(Debug)]
pub struct Answer {
    /// The schema of the rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What the views used cover.
    pub coverage: Vec<serde_json::Value>,
    /// Whether `limit` cut.
    pub truncated: bool,
    /// What may mislead in it.
    pub warnings: Vec<Warning>,
}

/// What a query may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When it has to be answered.
    pub deadline: Instant,
    /// The most bytes of working memory.
    pub memory: u64,
    /// The most rows.
    pub rows: usize,
}

/// Runs one SELECT. More than the limit's rows are an error.
///
/// # Errors
/// What the query does wrong; what [`answer`] says; a limit.
pub async fn query(catalog: &Catalog, sql: &str, at_least: &AtLeast, limits: Limits) -> Result<Answer, Problem> {
    let (statement, names) = within(limits.deadline, parsed(sql.to_string())).await??;
    for name in names.iter().filter(|name| is_file_name(name)) {
        if catalog.find(name).await.is_err() {
            return Err(Problem::bad_query(format!("{name:?} is a file: only views can be queried")));
        }
    }
    let answers = answer(catalog, &names, at_least, limits.deadline).await?;
    let context = context_of(catalog, &answers, limits.memory)?;
    let (plan, mut answered) = run_in(&context, statement, limits).await?;
    answered.warnings = warnings::of(&plan, &answers);
    answered.coverage = answers.into_values().map(|answer| answer.coverage).collect();
    Ok(answered)
}

/// Runs one SELECT over the tables of `context`, without coverage and warnings.
///
/// # Errors
/// What the query does wrong; a limit.
pub async fn select(context: &SessionContext, sql: &str, limits: Limits) -> Result<Answer, Problem> {
    let (statement, _) = within(limits.deadline, parsed(sql.to_string())).await??;
    Ok(run_in(context, statement, limits).await?.1)
}

/// Waits for work on a thread of its own, until `deadline`. After that it goes on, and costs nobody else.
async fn within<T: Send + 'static>(
    deadline: Instant,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(deadline.into(), apart(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(broken_off(e)),
        Err(_) => Err(Problem::timeout("the query was not planned in time; ask for less at once")),
    }
}

/// A query that panicked. Arrow does so where a column of texts or lists becomes larger than 2 GiB.
fn broken_off(error: JoinError) -> Problem {
    let said = error.to_string();
    match said.contains("overflow") || said.contains("capacity") {
        true => Problem::limit("a column of the query becomes larger than 2 GiB; ask for less at once"),
        false => Problem::internal(format!("the query broke off: {said}")),
    }
}

/// A statement that may be planned, and the views that it names.
async fn parsed(sql: String) -> Result<(Statement, BTreeSet<String>), Problem> {
    let statement = parse(&sql)?;
    if let Statement::Statement(statement) = &statement {
        bounds::check(statement)?;
    }
    let names = views_of(&statement)?;
    Ok((statement, names))
}

async fn run_in(
    context: &SessionContext,
    statement: Statement,
    limits: Limits,
) -> Result<(LogicalPlan, Answer), Problem> {
    let (plan, frame) = within(limits.deadline, planned(context.clone(), statement)).await??;
    let answered = collect(frame, limits.deadline, limits.rows).await?;
    if answered.truncated {
        let max_rows = limits.rows;
        let detail = format!("more than {max_rows} rows (serve.max_result_rows); aggregate, filter or LIMIT");
        return Err(Problem::limit(detail));
    }
    Ok((plan, answered))
}

async fn planned(context: SessionContext, mut statement: Statement) -> Result<(LogicalPlan, DataFrame), Problem> {
    let state = context.state();
    if let Statement::Statement(statement) = &mut statement {
        bifold_fold::sql::prepare(&mut **statement).map_err(unclear)?;
    }
    let plan = state.statement_to_plan(statement).await.map_err(|e| wrong(&e))?;
    let plan = bifold_fold::sql::unmarked(plan, Expr::Cast).map_err(|e| wrong(&e))?;
    subqueries::check(&plan)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(|e| wrong(&e))?;
    refuse_equal_names(&plan)?;
    let frame = context.execute_logical_plan(plan.clone()).await.map_err(|e| wrong(&e))?;
    Ok((plan, frame))
}

/// Runs a frame until `deadline`; `truncated` says that there are more than `max_rows`.
///
/// # Errors
/// The deadline, the memory limit, or DataFusion's failure.
pub async fn collect(frame: DataFrame, deadline: Instant, max_rows: usize) -> Result<Answer, Problem> {
    let limited = frame.limit(0, Some(max_rows.saturating_add(1))).map_err(|e| wrong(&e))?;
    let (task, plan) = within(deadline, physical(limited)).await?.map_err(|e| wrong(&e))?;
    let (schema, batches) = match tokio::time::timeout_at(deadline.into(), while_awaited(run(plan, task))).await {
        Ok(Ok(done)) => done.map_err(|e| wrong(&e))?,
        Ok(Err(e)) => return Err(broken_off(e)),
        Err(_) => return Err(Problem::timeout("the query did not end in time; it was stopped")),
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let truncated = rows > max_rows;
    let mut left = max_rows;
    let cut = batches.into_iter().map(|batch| {
        let taken = batch.num_rows().min(left);
        left -= taken;
        batch.slice(0, taken)
    });
    Ok(Answer { schema, batches: cut.collect(), coverage: vec![], truncated, warnings: vec![] })
}

/// What a frame is executed by, so that it can be stopped: a join that makes many rows of few yields between its batches, too.
async fn physical(frame: DataFrame) -> datafusion::error::Result<(Arc<TaskContext>, Arc<dyn ExecutionPlan>)> {
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let stoppable = plan.transform_up(|node| match node.children().len() {
        0 | 1 => Ok(Transformed::no(node)),
        _ => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)),
    })?;
    Ok((task, stoppable.data))
}

async fn run(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
) -> datafusion::error::Result<(SchemaRef, Vec<RecordBatch>)> {
    // The rows of the answer count, too.
    let held = MemoryConsumer::new("the answer").register(task.memory_pool());
    // Types are coerced only in the physical plan.
    let schema = plan.schema();
    let mut stream = execute_stream(plan, task)?;
    let (mut batches, mut buffers) = (vec![], Buffers::default());
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        held.try_grow(buffers.add(&batch))?;
        batches.push(batch);
    }
    Ok((schema, batches))
}

/// A context in which the answered views are tables, for one query of so much memory.
///
/// # Errors
/// An internal failure.
pub fn context_of(
    catalog: &Catalog,
    answers: &BTreeMap<String, ViewAnswer>,
    memory: u64,
) -> Result<SessionContext, Problem> {
    let tables =
        answers.iter().map(|(name, answer)| (name.as_str(), &answer.view.output, answer.rows.as_ref().clone()));
    context_with(&catalog.engine, tables, memory)
}

/// A context in which batches of rows are tables, for one query of so much memory.
///
/// # Errors
/// An internal failure.
pub fn context_with<'a>(
    engine: &Engine,
    tables: impl Iterator<Item = (&'a str, &'a SchemaRef, Vec<RecordBatch>)>,
    memory: u64,
) -> Result<SessionContext, Problem> {
    let context = engine.query_context(memory).map_err(|e| Problem::internal(e.to_string()))?;
    context.register_udaf(sum());
    collected::all(&context.runtime_env().memory_pool).into_iter().for_each(|function| context.register_udaf(function));
    for (name, schema, rows) in tables {
        let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let table = MemTable::try_new(schema, vec![rows]);
        let table = table.map_err(|e| Problem::internal(e.to_string()))?;
        let reference = datafusion::common::TableReference::bare(name.to_string());
        context.deregister_table(reference.clone()).map_err(|e| Problem::internal(e.to_string()))?;
        context.register_table(reference, Arc::new(table)).map_err(|e| Problem::internal(e.to_string()))?;
    }
    Ok(context)
}

fn parse(sql: &str) -> Result<Statement, Problem> {
    if sql.len() > MOST_BYTES {
        return Err(Problem::limit(format!("a query of {} bytes; the limit is {MOST_BYTES}", sql.len())));
    }
    bounds::check_text(sql)?;
    let parser = DFParserBuilder::new(sql).with_dialect(&GenericDialect {}).build();
    let mut statements = parser.and_then(|mut p| p.parse_statements()).map_err(|e| wrong(&e))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(Statement::Statement(statement)), true) if matches!(*statement, SqlStatement::Query(_)) => {
            match passed_over(&statement) {
                Some(clause) => Err(Problem::bad_query(format!("{clause} is not supported"))),
                None => Ok(Statement::Statement(statement)),
            }
        }
        (Some(Statement::Statement(statement)), true) if asks_what_there_is(&statement) => {
            let detail = "only SELECT is allowed: `bifold views`, /v1/views and /v1/views/{view} say what there is";
            Err(Problem::bad_query(detail))
        }
        (None, _) => Err(Problem::bad_query("there is no statement")),
        (_, false) => Err(Problem::bad_query("one statement at a time")),
        _ => Err(Problem::bad_query("only SELECT is allowed: views are changed by the pipeline")),
    }
}

/// Whether a statement asks for names and columns.
fn asks_what_there_is(statement: &SqlStatement) -> bool {
    matches!(
        statement,
        SqlStatement::ShowTables { .. }
            | SqlStatement::ShowViews { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowSchemas { .. }
            | SqlStatement::ShowDatabases { .. }
            | SqlStatement::ExplainTable { .. }
    )
}

/// The views that a statement names.
fn views_of(statement: &Statement) -> Result<BTreeSet<String>, Problem> {
    let (tables, _) = resolve_table_references(statement, true).map_err(|e| wrong(&e))?;
    let mut names = BTreeSet::new();
    for table in tables {
        let name = table.table();
        if table.schema().is_some() {
            return Err(Problem::bad_query(format!("{table} is no view: views have no schema")));
        }
        names.insert(name.to_string());
    }
    Ok(names)
}

/// Whether a name that is no view was meant as a file.
fn is_file_name(name: &str) -> bool {
    name.contains(['/', '\\', ':']) || name.rsplit_once('.').is_some_and(|(_, end)| FILES.contains(&end))
}

/// Endings by which a name is taken for a file.
const FILES: [&str; 6] = ["parquet", "csv", "json", "ndjson", "arrow", "avro"];

fn refuse_equal_names(plan: &LogicalPlan) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    match plan.schema().fields().iter().find(|field| !seen.insert(field.name().clone())) {
        Some(field) => Err(Problem::bad_query(format!("two columns are named {:?}; rename one with AS", field.name()))),
        None => Ok(()),
    }
}

/// An expression without a meaning as a problem.
fn unclear(unclear: bifold_fold::sql::Unclear) -> Problem {
    let problem = Problem::bad_query(format!("{}: {}", unclear.message, unclear.hint));
    match unclear.at.line {
        0 => problem,
        line => problem.with("position", json!({"line": line, "column": unclear.at.column})),
    }
}

/// DataFusion's failure as a problem.
pub fn wrong(error: &DataFusionError) -> Problem {
    let root = error.find_root();
    let message = match (error.diagnostic(), root) {
        (Some(diagnostic), _) => diagnostic.message.clone(),
        (None, DataFusionError::SQL(error, _)) => match error.as_ref() {
            ParserError::TokenizerError(said) | ParserError::ParserError(said) => said.clone(),
            ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_string(),
        },
        (None, root) => root.message().into_owned(),
    };
    let message = readable(&message);
    match root {
        DataFusionError::External(inner) if inner.is::<Overflow>() => Problem::query_overflow(&message),
        DataFusionError::ArrowError(inner, _) if matches!(**inner, ArrowError::ArithmeticOverflow(_)) => {
            beyond_a_type()
        }
        DataFusionError::ArrowError(inner, _) if is_beyond_a_type(&inner.to_string()) => beyond_a_type(),
        DataFusionError::Execution(said) if is_beyond_a_type(said) => beyond_a_type(),
        DataFusionError::ResourcesExhausted(said) if said.contains(OTHERS) => {
            Problem::too_many(format!("{message} (twice serve.query_memory); ask again in a moment"))
        }
        DataFusionError::ResourcesExhausted(_) => {
            Problem::limit(format!("the query needs more memory than serve.query_memory: {message}"))
        }
        // What DataFusion takes for a bug of its own, and is the query's.
        DataFusionError::Internal(said) if said.contains("egular expression") || said.contains("failed to convert") => {
            Problem::bad_query(message)
        }
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::Internal(_) => {
            Problem::internal(message)
        }
        _ => {
            let problem = Problem::bad_query(message.clone());
            let span = error.diagnostic().and_then(|d| d.span).map(|span| (span.start.line, span.start.column));
            match span.or_else(|| place_in(&message)) {
                Some((line, column)) => problem.with("position", json!({"line": line, "column": column})),
                None => problem,
            }
        }
    }
}

/// Whether a failure says that a number is beyond its type. DataFusion has no error of its own for it.
fn is_beyond_a_type(said: &str) -> bool {
    said.to_lowercase().contains("overflow")
        || said.contains("Can't cast value")
        || said.contains("is too large to store")
}

fn beyond_a_type() -> Problem {
    Problem::query_overflow("a value of the query is beyond its type")
}

/// The place that the parser names at the end of its message.
fn place_in(message: &str) -> Option<(u64, u64)> {
    let (_, at) = message.rsplit_once("Line: ")?;
    let (line, column) = at.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}
