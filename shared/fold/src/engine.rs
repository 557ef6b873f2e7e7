//! The DataFusion context that views are compiled and run in: one canonical configuration in every layer.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;

use crate::{functions, times};

/// The stack of every thread that plans SQL: planning recurses once per operator of a chain.
pub const STACK: usize = 128 << 20;

/// A DataFusion context with bifold's functions and settings.
#[derive(Clone)]
pub struct Engine {
    context: SessionContext,
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
        let mut config = SessionConfig::new().with_target_partitions(threads).with_information_schema(false);
        let options = config.options_mut();
        // Strings are Utf8 everywhere: view types hash differently.
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.collect_spans = true;
        // One state row per group, not per event, however many groups there are.
        options.execution.skip_partial_aggregation_probe_ratio_threshold = 1.0;
        let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(times::Comparisons)];
        rules.extend(Analyzer::new().rules);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.build_arc()?)
            .with_default_features()
            .with_type_planner(Arc::new(times::Types))
            .with_analyzer_rules(rules)
            .build();
        let context = SessionContext::new_with_state(state);
        for function in functions::scalars() {
            context.register_udf((*function).clone());
        }
        for function in functions::bounded(context.state().scalar_functions()) {
            context.register_udf(function);
        }
        for function in functions::aggregates() {
            context.register_udaf((*function).clone());
        }
        Ok(Self { context })
    }

    /// A context of its own for one query, which ends with `ResourcesExhausted` beyond `memory` bytes: it does not spill.
    ///
    /// # Errors
    /// The runtime cannot be built.
    pub fn query_context(&self, memory: u64) -> Result<SessionContext> {
        let state = self.context.state();
        let pool = GreedyMemoryPool::new(usize::try_from(memory).unwrap_or(usize::MAX));
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
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    /// The context itself.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// What a plan is executed with.
    pub fn task(&self) -> Arc<TaskContext> {
        self.context.task_ctx()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
