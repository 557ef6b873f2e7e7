//! What commands start from: configuration, pipeline, store and log.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bifold_config::{Config, Overrides};
use bifold_fold::pipeline::RecordLimits;
use bifold_fold::view::Readings;
use bifold_fold::{Engine, Pipeline, Source, View};
use bifold_ledger::Offsets;
use bifold_log::{KafkaLog, LocalLog, Log};
use bifold_store::{Journal, SourceFiles};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::args::Common;
use crate::exit::Exit;

/// Configuration and pipeline, read and compiled.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) pipeline: Pipeline,
    pub(crate) views: Vec<Readings>,
    pub(crate) engine: Engine,
}

/// Reads the configuration alone.
pub(crate) fn configuration(common: &Common, more: &[(&'static str, String, &'static str)]) -> Result<Config, Exit> {
    let flags = [
        ("pipeline", &common.pipeline, "--pipeline"),
        ("data_dir", &common.data_dir, "--data-dir"),
        ("store.url", &common.store, "--store"),
        ("kafka.brokers", &common.brokers, "--brokers"),
    ];
    let mut values: Vec<_> =
        flags.into_iter().filter_map(|(key, value, flag)| Some((key, value.clone()?, flag))).collect();
    values.extend(more.iter().cloned());
    let config = bifold_config::load(&Overrides { config: common.config.clone(), values }, std::env::vars())?;
    bifold_batch::schedule::check(&config.batch.schedule).map_err(Exit::usage)?;
    Ok(config)
}

impl Context {
    /// Reads everything.
    pub(crate) async fn load(common: &Common) -> Result<Self, Exit> {
        Self::with(configuration(common, &[])?).await
    }

    /// Reads the pipeline of a configuration.
    pub(crate) async fn with(config: Config) -> Result<Self, Exit> {
        let pipeline = bifold_fold::pipeline::read(
            &config.pipeline,
            RecordLimits { bytes: config.collect.max_record, elements: Some(config.collect.max_elements) },
        )?;
        if pipeline.sources.is_empty() {
            let path = config.pipeline.display();
            return Err(Exit::Usage(format!(
                "the pipeline {path} declares no source; start with CREATE TABLE … WITH (…)"
            )));
        }
        let engine = Engine::new();
        let mut views = vec![];
        for view in &pipeline.views {
            views.push(Readings::of(&engine, &pipeline, view).await?);
        }
        Ok(Self { config, pipeline, views, engine })
    }

    /// The source of this name.
    pub(crate) fn source(&self, name: &str) -> Result<Arc<Source>, Exit> {
        match self.pipeline.sources.iter().find(|source| source.name == name) {
            Some(source) => Ok(Arc::new(source.clone())),
            None => {
                let known: Vec<_> = self.pipeline.sources.iter().map(|source| source.name.as_str()).collect();
                Err(Exit::Usage(format!("there is no source {name:?}; there is {}", known.join(", "))))
            }
        }
    }

    /// The pipeline's views of a source, under each dialect.
    pub(crate) fn readings_of(&self, source: &str) -> impl Iterator<Item = &Readings> {
        self.views.iter().filter(move |view| view.any().source.name == source)
    }

    /// The pipeline's views of a source, for their names and columns.
    pub(crate) fn views_of(&self, source: &str) -> Vec<Arc<View>> {
        self.readings_of(source).map(|view| Arc::clone(view.any())).collect()
    }

    /// The object store.
    pub(crate) fn store(&self) -> Result<(Arc<dyn ObjectStore>, Path), Exit> {
        Ok(bifold_store::open(&self.config.store.url)?)
    }

    /// The files of a source.
    pub(crate) fn files(&self, source: &str) -> Result<SourceFiles, Exit> {
        let (store, root) = self.store()?;
        Ok(SourceFiles::new(store, &root, source))
    }

    /// Whether the embedded log is used.
    pub(crate) fn is_local(&self) -> bool {
        self.config.kafka.brokers.is_empty()
    }

    /// The log.
    pub(crate) fn log(&self) -> Result<Arc<dyn Log>, bifold_log::Error> {
        if self.is_local() {
            // Its owner's alone; what cannot be made is the log's to tell.
            let _ = bifold_store::private_folder(&self.config.data_dir);
            Ok(Arc::new(LocalLog::open(&self.config.data_dir.join("log"))?))
        } else {
            Ok(Arc::new(KafkaLog::new(&self.config.kafka.brokers, &self.config.kafka.properties)?))
        }
    }

    /// The log, for people.
    pub(crate) fn log_name(&self) -> String {
        match self.is_local() {
            true => format!("the local log in {}", self.config.data_dir.join("log").display()),
            false => format!("Kafka at {}", self.config.kafka.brokers),
        }
    }

    /// The store, for people.
    pub(crate) fn store_name(&self) -> String {
        format!("the store {}", self.config.store.url)
    }

    /// The consumer group of a role, but for the installation's id, which the store holds.
    pub(crate) fn group(&self, source: &str, role: &str) -> String {
        format!("{}.{source}.{role}", self.config.kafka.group_prefix)
    }

    /// Makes the topics of the local log that do not exist yet.
    pub(crate) async fn create_local_topics(&self, log: &dyn Log) -> Result<(), Exit> {
        for topic in self.pipeline.sources.iter().flat_map(|source| &source.topics) {
            log.create_topic(topic, self.config.log.partitions).await?;
        }
        Ok(())
    }

    /// The ledgers of all sources, read within `timeout`.
    pub(crate) async fn journals(&self, timeout: Duration) -> Result<BTreeMap<String, Journal>, Exit> {
        let mut journals = BTreeMap::new();
        for source in &self.pipeline.sources {
            let journal = within(timeout, &self.store_name(), Journal::open(self.files(&source.name)?, "cli")).await?;
            journals.insert(source.name.clone(), journal);
        }
        Ok(journals)
    }
}

/// Waits for `work`, but no longer than `timeout`.
pub(crate) async fn within<T, E: Into<Exit>>(
    timeout: Duration,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Exit> {
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Exit::Failed(format!("{what} did not answer within {}", humantime::format_duration(timeout)))),
    }
}

/// Reads OFFSETS.
pub(crate) fn offsets(text: &str) -> Result<Offsets, Exit> {
    text.parse().map_err(|e| Exit::Usage(format!("--at-least: {e}; write topic/partition:next[,…], or latest")))
}
