//! From a view's SQL to a [`View`].

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bifold_ledger::{Dialect, VersionId, VersionState};
use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Aggregate, Cast, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TryCast, Volatility, lit,
};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement};
use sha2::{Digest, Sha256};

use super::dry_run::dry_run;
use super::{View, aggregate, check, constants, shape, total, wrong};
use crate::dialect::{EXACT_CONSTANTS, TODAY};
use crate::engine::Engine;
use crate::error::{Error, PipelineError};
use crate::exact;
use crate::pipeline::{Pipeline, ViewText};
use crate::schema::Source;
use crate::sql;

/// Compiles every view of a pipeline.
///
/// # Errors
/// The first view that cannot be merged or is wrong otherwise.
pub async fn compile_all(engine: &Engine, pipeline: &Pipeline) -> Result<Vec<Arc<View>>, PipelineError> {
    let mut views = vec![];
    for view in &pipeline.views {
        views.push(compile(engine, pipeline, view).await?);
    }
    Ok(views)
}

/// Compiles one view.
///
/// # Errors
/// What is wrong with it, where, and what to do.
pub async fn compile(engine: &Engine, pipeline: &Pipeline, text: &ViewText) -> Result<Arc<View>, PipelineError> {
    compile_as(engine, pipeline, text, Terms { dialect: TODAY, judged: Judged::New }).await
}

/// Compiles one view as it was declared under a dialect.
///
/// # Errors
/// What that dialect does not understand.
pub async fn compile_under(
    engine: &Engine,
    pipeline: &Pipeline,
    text: &ViewText,
    dialect: Dialect,
) -> Result<Arc<View>, PipelineError> {
    compile_as(engine, pipeline, text, Terms { dialect, judged: Judged::Stored }).await
}

/// Whether a view is judged by what bifold has come to refuse: what the ledger holds goes on as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    New,
    Stored,
}

/// How a view's SQL is read.
#[derive(Clone, Copy)]
struct Terms {
    dialect: Dialect,
    judged: Judged,
}

impl Terms {
    fn is_new(self) -> bool {
        self.judged == Judged::New
    }
}

/// A version as the ledger holds it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The view's name.
    pub name: &'a str,
    /// The normalised SQL.
    pub sql: &'a str,
    /// The source's definition.
    pub source: &'a serde_json::Value,
    /// The dialect it was declared under.
    pub dialect: Dialect,
}

impl<'a> From<&'a VersionState> for Stored<'a> {
    fn from(state: &'a VersionState) -> Self {
        Self { name: &state.view, sql: &state.sql, source: &state.source, dialect: state.dialect }
    }
}

async fn compile_as(
    engine: &Engine,
    pipeline: &Pipeline,
    text: &ViewText,
    terms: Terms,
) -> Result<Arc<View>, PipelineError> {
    let read = check::read_by(text)?;
    let Some(source) = pipeline.sources.iter().find(|source| source.name == read.source) else {
        let nearest = pipeline.sources.iter().min_by_key(|s| strsim::damerau_levenshtein(&s.name, &read.source));
        let hint = match nearest {
            Some(nearest) => format!("the nearest source is {:?}", nearest.name),
            None => "declare it with CREATE TABLE".to_string(),
        };
        return Err(text.place.error(read.at, format!("there is no source {:?}", read.source), Some(hint)));
    };
    let source = Arc::new(source.under(terms.dialect));
    let state = match state_of(engine.context_of(terms.dialect), &source) {
        Ok(state) => state,
        Err(error) => return Err(text.place.error(text.place.start(), error.strip_backtrace(), None)),
    };
    let wrong = |error: DataFusionError| wrong::planning_error(text, &source, &state, error);
    let statement = Statement::Query(prepared(text, terms.dialect)?);
    let plan = state.statement_to_plan(DataFusionStatement::Statement(Box::new(statement))).await.map_err(wrong)?;
    let plan = if terms.dialect.is_first() { plan } else { sql::unmarked(plan, failing_is_null).map_err(wrong)? };
    if terms.is_new() {
        check::passed_over(text, &state)?;
    }
    let plan = each_key_once(plan).map_err(wrong)?;
    refuse_volatile(text, &plan)?;
    let plan = analyse(&state, plan, terms).map_err(wrong)?;
    let found = the_aggregate(text, &plan)?;
    let of = (text, Arc::clone(&source), terms.dialect);
    let view = build(of, &state, plan, found).map_err(|failure| match failure {
        Failure::Plan(error) => wrong(error),
        Failure::Refused(refused) => wrong::refused(text, refused),
    })?;
    let is_time = |key: usize| {
        matches!(view.stored.field(key).data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
    };
    if view.retention_us.is_some() && !view.time_key.is_some_and(is_time) {
        let hint = Some("group by the event time or by a window of it, and show it".to_string());
        let message = "retention goes by the view's time column, and this view has none";
        return Err(text.place.error(text.place.options(), message, hint));
    }
    if terms.is_new() && view.retention_us.is_some() && !source.bounds_event_time() {
        let hint = "say WITH (event_time_max_ahead = '1 hour') or event_time_max of the source";
        let message = "retention goes by the newest event time, and this source lets one wrong time empty the view";
        return Err(text.place.error(text.place.options(), message, Some(hint.to_string())));
    }
    let view = Arc::new(view);
    match dry_run(engine, &view).await {
        Ok(()) => Ok(view),
        Err(Error::DataFusion(error)) => Err(wrong(error)),
        Err(error) => Err(text.place.error(text.place.start(), error.to_string(), None)),
    }
}

/// Compiles a version as the ledger holds it, by the source's definition of its own.
///
/// # Errors
/// SQL or a definition that this bifold does not understand.
pub async fn compile_stored(engine: &Engine, stored: Stored<'_>) -> Result<Arc<View>, PipelineError> {
    let Stored { name, sql, source, dialect } = stored;
    let quoted = name.replace('"', "\"\"");
    // No SELECT begins with WITH (: those are the view's options.
    let begin = if sql.starts_with("WITH (") { "" } else { "AS " };
    let text = format!("CREATE MATERIALIZED VIEW \"{quoted}\" {begin}{sql}");
    let mut pipeline = crate::pipeline::parse(&format!("the ledger's view {name}"), &text, 0u64)?;
    let view = pipeline.views.remove(0);
    if dialect > TODAY {
        let message = format!("it was declared under dialect {dialect}, and this bifold knows dialects up to {TODAY}");
        return Err(view.place.error(view.place.start(), message, Some("run a newer bifold".to_string())));
    }
    let source = serde_json::from_value::<Source>(source.clone()).map_err(|e| {
        let at = view.place.clause(&["FROM"]);
        view.place.error(at, format!("its source cannot be read: {e}"), None)
    })?;
    pipeline.sources.push(source);
    compile_as(engine, &pipeline, &view, Terms { dialect, judged: Judged::Stored }).await
}

enum Failure {
    Plan(DataFusionError),
    Refused(aggregate::Refused),
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Failure::Plan(error)
    }
}

/// A session in which the source is an empty table, and the only one. Its catalog is its own: others compile at the
/// same time, perhaps another pipeline's source of the same name.
fn state_of(context: &SessionContext, source: &Source) -> DataFusionResult<SessionState> {
    let state = context.state();
    let config = state.config().clone().with_create_default_catalog_and_schema(true);
    let state = SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_table(TableReference::bare(source.name.clone()), Arc::new(EmptyTable::new(source.schema())))?;
    Ok(context.state())
}

/// Type coercion and constant folding alone, and expressions made total: no rule that may restructure the aggregate.
fn analyse(state: &SessionState, plan: LogicalPlan, terms: Terms) -> DataFusionResult<LogicalPlan> {
    let plan = total::wide(plan)?;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    if terms.is_new() {
        exact::implicit::check_constants(&plan)?;
        exact::implicit::check(&plan)?;
    }
    let context = OptimizerContext::new_with_config_options(Arc::clone(state.config_options()));
    let context = context.with_skip_failing_rules(false);
    let simplify: Arc<dyn OptimizerRule + Send + Sync> = match terms.dialect.is_first() {
        true => Arc::new(SimplifyExpressions::new()),
        false => Arc::new(exact::constants::Fold { most: None, exact: terms.dialect >= EXACT_CONSTANTS }),
    };
    let plan = Optimizer::with_rules(vec![simplify]).optimize(plan, &context, |_, _| {})?;
    if terms.is_new() {
        constants::check(&plan, state.config_options())?;
    }
    total::total(plan, terms.dialect)
}

/// The view's SELECT as a dialect reads it.
fn prepared(text: &ViewText, dialect: Dialect) -> Result<Box<Query>, PipelineError> {
    let mut query = text.query.clone();
    if !dialect.is_first() {
        sql::prepare(&mut *query).map_err(|unclear| {
            let at = Some(unclear.at).filter(|at| at.line > 0).unwrap_or_else(|| text.place.clause(&["SELECT"]));
            text.place.error(at, unclear.message, Some(unclear.hint))
        })?;
    }
    Ok(query)
}

/// What a CAST that a view writes becomes: a value that it does not fit is NULL.
fn failing_is_null(cast: Cast) -> Expr {
    Expr::TryCast(TryCast::new_from_field(cast.expr, cast.field))
}

/// A key that GROUP BY names twice is one key: the aggregate's schema has it once.
fn each_key_once(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let made = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => {
            let mut keys: Vec<Expr> = vec![];
            for key in &aggregate.group_expr {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
            if keys.len() == aggregate.group_expr.len() {
                return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
            }
            let made = Aggregate::try_new(aggregate.input, keys, aggregate.aggr_expr)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(made)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(made.data)
}

fn refuse_volatile(text: &ViewText, plan: &LogicalPlan) -> Result<(), PipelineError> {
    let mut offender: Option<Arc<ScalarUDF>> = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && (call.func.signature().volatility != Volatility::Immutable || call.func.name() == "version")
                {
                    offender.get_or_insert_with(|| Arc::clone(&call.func));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    let Some(function) = offender else {
        return walked.map(|_| ()).map_err(|e| text.place.error(text.place.start(), e.strip_backtrace(), None));
    };
    let names: Vec<&str> = std::iter::once(function.name()).chain(function.aliases().iter().map(|a| &**a)).collect();
    let (name, at) =
        text.place.find(&names).unwrap_or_else(|| (function.name().to_string(), text.place.clause(&["SELECT"])));
    let hint = "a view's rows must follow from the events alone, so that they can be computed again: use an event's \
                own time here, or this function in the query of the view";
    Err(text.place.error(at, format!("{name} depends on more than the event"), Some(hint.to_string())))
}

/// The one aggregate of a plan in which everything else merges, too: what stands below it is done event by event,
/// what stands above it row by row.
fn the_aggregate(text: &ViewText, plan: &LogicalPlan) -> Result<Aggregate, PipelineError> {
    let refuse = |words: &[&str], message: String, hint: &str| {
        Err(text.place.error(text.place.clause(words), message, Some(hint.to_string())))
    };
    let mut found = vec![];
    let mut odd = None;
    let walked = plan.apply(|node| {
        match node {
            LogicalPlan::Aggregate(aggregate) => found.push(aggregate.clone()),
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::TableScan(_) | LogicalPlan::Unnest(_) => {}
            other => {
                odd.get_or_insert_with(|| other.display().to_string());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if let Some(odd) = odd {
        let hint = "write SELECT … FROM … WHERE … GROUP BY … HAVING …, and the rest into the query of the view";
        return refuse(&["SELECT"], format!("this cannot be merged: {odd}"), hint);
    }
    if walked.is_err() || found.len() != 1 {
        let hint = "add GROUP BY, or an aggregate such as count(*)";
        return refuse(&["SELECT"], "this view does not aggregate".to_string(), hint);
    }
    let aggregate = found.remove(0);
    if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        let hint = "make one view of each set of columns";
        return refuse(&["ROLLUP", "CUBE", "GROUPING"], "grouping sets cannot be merged".to_string(), hint);
    }
    Ok(aggregate)
}

fn build(
    (text, source, dialect): (&ViewText, Arc<Source>, Dialect),
    state: &SessionState,
    plan: LogicalPlan,
    aggregate: Aggregate,
) -> Result<View, Failure> {
    let ungrouped = aggregate.group_expr.is_empty();
    let keys = if ungrouped { vec![lit(0i64).alias("_all")] } else { aggregate.group_expr.clone() };
    let value_fields = &aggregate.schema.fields()[aggregate.group_expr.len()..];
    let mut calls = vec![];
    for (expr, field) in aggregate.aggr_expr.iter().zip(value_fields) {
        let call = aggregate::prepare(dialect, expr, aggregate.input.schema(), field.data_type());
        let call = call.map_err(Failure::Refused)?;
        calls.push(call);
    }
    let exprs = keys.iter().chain(calls.iter().map(|call| &call.expr));
    let input = narrow(&aggregate, exprs)?;
    let schema = input.schema();
    let input_schema: SchemaRef = Arc::clone(schema.inner());
    let (props, planning) = (state.execution_props(), PhysicalPlanningContext::default());
    let group_exprs = keys
        .iter()
        .map(|expr| Ok((create_physical_expr(expr, schema, props, &planning)?, expr.schema_name().to_string())))
        .collect::<DataFusionResult<Vec<_>>>()?;
    let group_by = Arc::new(PhysicalGroupBy::new_single(group_exprs));
    let (mut functions, mut filters) = (vec![], vec![]);
    for call in &calls {
        let lowered = LoweredAggregateBuilder::new(&call.expr, schema, &input_schema, props, &planning).build()?;
        aggregate::try_out(&lowered.aggregate).map_err(Failure::Refused)?;
        functions.push(lowered.aggregate);
        filters.push(lowered.filter);
    }
    let empty = MemorySourceConfig::try_new_exec(&[vec![]], Arc::clone(&input_schema), None)?;
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        Arc::clone(&group_by),
        functions.clone(),
        filters.clone(),
        empty,
        Arc::clone(&input_schema),
    )?;
    let (merged, stored) = state_schemas(&partial.schema(), keys.len());
    let shape = shape::shape_of(&plan, &aggregate, &source);
    let sql = text.sql();
    let state_ids: Vec<String> = calls.iter().map(|call| call.state_id.clone()).collect();
    Ok(View {
        name: text.name.clone(),
        version: version_of(&text.name, &sql, &source, (&state_ids, dialect)),
        dialect,
        sql,
        output: Arc::clone(plan.schema().inner()),
        keys: shape.keys,
        all_keys_shown: shape.all_keys_shown,
        time_column: shape.time_column,
        retention_us: text.retention_us,
        time_key: shape.time_key,
        approximate: shape.approximate,
        not_additive: shape.not_additive,
        needed: scanned_columns(state, &input)?,
        state_ids,
        stored,
        merged,
        input,
        plan,
        input_schema,
        group_by,
        calls: functions,
        filters,
        guards: calls.iter().map(|call| call.guard.clone()).collect(),
        plain_calls: calls.into_iter().map(|call| call.plain).collect(),
        ungrouped,
        aggregate,
        source,
    })
}

/// The aggregate's input, narrowed to the columns that keys and calls read.
fn narrow<'a>(aggregate: &Aggregate, exprs: impl Iterator<Item = &'a Expr>) -> DataFusionResult<LogicalPlan> {
    let mut read: BTreeSet<Column> = BTreeSet::new();
    for expr in exprs {
        read.extend(expr.column_refs().into_iter().cloned());
    }
    let schema = aggregate.input.schema();
    let mut columns = vec![];
    for (qualifier, field) in schema.iter() {
        let column = Column::new(qualifier.cloned(), field.name());
        let is_read = |r: &Column| r.name == column.name && (r.relation.is_none() || r.relation == column.relation);
        if read.iter().any(is_read) {
            columns.push(Expr::Column(column));
        }
    }
    if columns.is_empty() {
        // count(*) alone: one cheap column carries the rows.
        let (qualifier, field) = schema.qualified_field_with_unqualified_name("_offset")?;
        columns.push(Expr::Column(Column::new(qualifier.cloned(), field.name())));
    }
    LogicalPlanBuilder::from(aggregate.input.as_ref().clone()).project(columns)?.build()
}

/// The source columns that the optimised input scans.
fn scanned_columns(state: &SessionState, input: &LogicalPlan) -> DataFusionResult<Vec<String>> {
    let mut columns = vec![];
    state.optimize(input)?.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            columns.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
            for filter in &scan.filters {
                columns.extend(filter.column_refs().into_iter().map(|column| column.name.clone()));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    columns.sort();
    columns.dedup();
    Ok(columns)
}

/// The schemas of states: as they merge, under DataFusion's own names, and as they are stored, under names of their own
/// and in canonical types. Every column is nullable.
fn state_schemas(partial: &Schema, keys: usize) -> (SchemaRef, SchemaRef) {
    let name = |i: usize| if i < keys { format!("k{i}") } else { format!("s{}", i - keys) };
    let merged = partial.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true));
    let stored = partial.fields().iter().enumerate().map(|(i, f)| Field::new(name(i), canonical(f.data_type()), true));
    (Arc::new(Schema::new(merged.collect::<Vec<_>>())), Arc::new(Schema::new(stored.collect::<Vec<_>>())))
}

/// Storage has one type for text and one for bytes, and no names of DataFusion's inside lists and structs.
fn canonical(ty: &DataType) -> DataType {
    let field = |(i, f): (usize, &Arc<Field>)| Field::new(format!("f{i}"), canonical(f.data_type()), true);
    let item = |f: &Arc<Field>| Arc::new(Field::new_list_field(canonical(f.data_type()), true));
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => canonical(value),
        DataType::List(f) => DataType::List(item(f)),
        DataType::LargeList(f) => DataType::LargeList(item(f)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().enumerate().map(field).collect()),
        other => other.clone(),
    }
}

/// The hash of all that decides a view's content; no plan text, no library version.
fn version_of(name: &str, sql: &str, source: &Source, (states, dialect): (&[String], Dialect)) -> VersionId {
    let mut all = serde_json::json!({ "view": name, "sql": sql, "source": source, "states": states });
    // Versions from before there were dialects stay what they are.
    if !dialect.is_first() {
        all["dialect"] = dialect.0.into();
    }
    let hash = Sha256::digest(all.to_string().as_bytes());
    VersionId(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}
