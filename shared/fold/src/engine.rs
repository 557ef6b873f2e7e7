//! The DataFusion context that views are compiled and run in: one canonical configuration in every layer.

use std::path::Path;
use std::sync::Arc;

use bifold_ledger::Dialect;
use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;

use crate::dialect::TODAY;
use crate::memory::{QueryPool, Shared};
use crate::{exact, functions, sql, times, unnest};

/// The stack of every thread that plans SQL: planning recurses once per operator of a chain.
pub const STACK: usize = 128 << 20;

/// Rows of a batch, each of which a constant may be repeated for.
const ROWS_OF_A_BATCH: u64 = 8_192;

/// Bytes of a constant that no query is refused for.
const SMALL: u64 = 16 << 10;

/// DataFusion contexts with bifold's functions and settings, one for each dialect; they share memory and scratch.
#[derive(Clone)]
pub struct Engine {
    first: SessionContext,
    today: SessionContext,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without a memory limit, on one thread per query: for small batches.
    pub fn new() -> Self {
        Self::build(RuntimeEnvBuilder::new(), 1).expect("the default runtime can be built")
    }

    /// An engine that keeps to `memory` bytes, spills into `scratch` beyond that, and uses `threads`.
    ///
    /// # Errors
    /// The scratch folder cannot be used.
    pub fn with_limit(memory: u64, scratch: &Path, threads: usize) -> Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(usize::try_from(memory).unwrap_or(usize::MAX))))
            .with_temp_file_path(scratch);
        Self::build(runtime, threads)
    }

    fn build(runtime: RuntimeEnvBuilder, threads: usize) -> Result<Self> {
        let runtime = runtime.build_arc()?;
        let first = Self::context_in(Dialect::FIRST, Arc::clone(&runtime), threads);
        Ok(Self { first, today: Self::context_in(TODAY, runtime, threads), shared: Arc::default() })
    }

    fn context_in(dialect: Dialect, runtime: Arc<RuntimeEnv>, threads: usize) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(threads).with_information_schema(false);
        let options = config.options_mut();
        // Strings are Utf8 everywhere: view types hash differently.
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        // One state row per group, not per event, however many groups there are.
        options.execution.skip_partial_aggregation_probe_ratio_threshold = 1.0;
        if !dialect.is_first() {
            // Numbers in SQL are exact.
            options.sql_parser.parse_float_as_decimal = true;
            // Folding a constant may make a column that cannot be NULL, of which the planner knew that it can.
            options.execution.skip_physical_aggregate_schema_check = true;
            // Its heap takes NaN for less than nothing.
            options.optimizer.enable_topk_aggregation = false;
        }
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(times::Types))
            .with_physical_optimizer_rule(Arc::new(unnest::InPieces));
        let builder = if dialect.is_first() {
            let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(times::Comparisons)];
            rules.extend(Analyzer::new().rules);
            builder.with_analyzer_rules(rules)
        } else {
            builder.with_analyzer_rules(exact::analyzer_rules()).with_optimizer_rules(exact::optimizer_rules(None))
        };
        let context = SessionContext::new_with_state(builder.build());
        for function in functions::scalars() {
            context.register_udf((*function).clone());
        }
        for function in functions::bounded(context.state().scalar_functions()) {
            context.register_udf(function);
        }
        for function in functions::aggregates(dialect, context.state().aggregate_functions()) {
            context.register_udaf(function);
        }
        if !dialect.is_first() {
            context.register_udf((*sql::marker()).clone());
        }
        context
    }

    /// The same, with batches of so many rows.
    #[must_use]
    pub fn with_batch_rows(self, rows: usize) -> Self {
        let smaller = |context: &SessionContext| {
            let state = context.state();
            let config = state.config().clone().with_batch_size(rows);
            SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
        };
        Self { first: smaller(&self.first), today: smaller(&self.today), shared: self.shared }
    }

    /// A context of its own for one query, which ends with `ResourcesExhausted` beyond `memory` bytes, or where all queries take
    /// twice that: it does not spill.
    ///
    /// # Errors
    /// The runtime cannot be built.
    pub fn query_context(&self, memory: u64) -> Result<SessionContext> {
        let state = self.today.state();
        let most = usize::try_from(memory).unwrap_or(usize::MAX / 4).min(usize::MAX / 4);
        let pool = QueryPool::new(most, Arc::clone(&self.shared));
        let runtime = RuntimeEnvBuilder::from_runtime_env(state.runtime_env())
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        // Its tables are its own: others query at the same time.
        let config = state.config().clone().with_create_default_catalog_and_schema(true);
        let state = SessionStateBuilder::new_from_existing(state)
            .with_config(config)
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .with_runtime_env(runtime)
            .with_analyzer_rule(Arc::new(exact::arithmetic::Checked { memory }))
            .with_optimizer_rules(exact::optimizer_rules(Some((memory / 2 / ROWS_OF_A_BATCH).max(SMALL))))
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    /// The memory that queries share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The context of today's dialect.
    pub fn context(&self) -> &SessionContext {
        &self.today
    }

    /// The context of a dialect.
    pub(crate) fn context_of(&self, dialect: Dialect) -> &SessionContext {
        if dialect.is_first() { &self.first } else { &self.today }
    }

    /// What a plan is executed with.
    pub fn task(&self) -> Arc<TaskContext> {
        self.today.task_ctx()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
