//! The services: starting their layers, saying when they are ready, and ending in order.

mod role;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bifold_batch::maintain::Maintain;
use bifold_batch::{Collector, schedule};
use bifold_config::Config;
use bifold_fold::live::{LiveAnswer, LiveRequest};
use bifold_ledger::Ledger;
use bifold_log::{Log, Survey};
use bifold_service::{Shutdown, StartLimit, bind, health_routes, install_metrics};
use bifold_serving::{Catalog, SourceSpec, SpeedSource, are_stuck, speed_source};
use bifold_speed::{Folder, Live};

use crate::args::{Common, Service};
use crate::commands::batch::recompute_of;
use crate::context::{Context, configuration};
use crate::exit::Exit;
use role::Role;
pub(crate) use role::Signals;

/// Speed instances in this process.
#[derive(Debug)]
struct LocalSpeed(BTreeMap<String, Live>);

#[async_trait::async_trait]
impl SpeedSource for LocalSpeed {
    async fn live(&self, source: &str, request: &LiveRequest, _within: Duration) -> Vec<LiveAnswer> {
        self.0.get(source).map(|live| live.answer(request)).into_iter().collect()
    }
}

fn with_listen(common: &Common, service: &Service, key: &'static str) -> Result<Config, Exit> {
    let listen = service.listen.clone().map(|address| (key, address, "--listen"));
    configuration(common, listen.as_slice())
}

/// `bifold up`
pub(crate) async fn up(common: &Common, service: &Service) -> Result<(), Exit> {
    let context = Context::with(with_listen(common, service, "serve.listen")?).await?;
    let mut role = start_up(&context, None).await?;
    role.run_to_end().await
}

/// Starts everything in this process.
pub(crate) async fn start_up(context: &Context, announce: Option<bool>) -> Result<Role, Exit> {
    let config = &context.config;
    refuse_open_listener(config)?;
    let (listener, address) = bind(&config.serve.listen, "serve.listen").await?;
    let mut role = Role::new("up", address, announce.unwrap_or(true));
    let log = open_log(context, &role).await?;
    if context.is_local() {
        context.create_local_topics(&*log).await?;
    }
    let limit = StartLimit::new(config.startup_timeout);
    let mut lives = BTreeMap::new();
    for source in &context.pipeline.sources {
        let live = Live::default();
        lives.insert(source.name.clone(), live.clone());
        start_collector(context, &mut role, &log, &source.name, limit)?;
        start_folder(context, &mut role, &log, &source.name, limit, live)?;
        start_schedule(context, &mut role, &source.name)?;
    }
    let catalog = catalog(context, &log, vec![Arc::new(LocalSpeed(lives))])?;
    let create_topics = context.is_local().then_some(config.log.partitions);
    let api = bifold_serving::routes(catalog, config.serve.clone(), create_topics);
    let routes = api.merge(health_routes(role.readiness.clone(), install_metrics(), are_stuck));
    role.serve(listener, routes);
    Ok(role)
}

/// `bifold collect`
pub(crate) async fn collect(common: &Common, service: &Service) -> Result<(), Exit> {
    let context = Context::with(with_listen(common, service, "collect.listen")?).await?;
    refuse_local_log(&context, "collect")?;
    let (listener, address) = bind(&context.config.collect.listen, "collect.listen").await?;
    let mut role = Role::new("collect", address, true);
    warn_if_open(address, "collect.listen");
    let log = open_log(&context, &role).await?;
    let metrics = install_metrics();
    let limit = StartLimit::new(context.config.startup_timeout);
    for source in &context.pipeline.sources {
        start_collector(&context, &mut role, &log, &source.name, limit)?;
    }
    role.serve(listener, health_routes(role.readiness.clone(), metrics, || false));
    role.run_to_end().await
}

/// `bifold speed`
pub(crate) async fn speed(common: &Common, service: &Service) -> Result<(), Exit> {
    let context = Context::with(with_listen(common, service, "speed.listen")?).await?;
    refuse_local_log(&context, "speed")?;
    let (listener, address) = bind(&context.config.speed.listen, "speed.listen").await?;
    let mut role = Role::new("speed", address, true);
    warn_if_open(address, "speed.listen");
    let log = open_log(&context, &role).await?;
    let metrics = install_metrics();
    let limit = StartLimit::new(context.config.startup_timeout);
    let mut lives = BTreeMap::new();
    for source in &context.pipeline.sources {
        let live = Live::default();
        lives.insert(source.name.clone(), live.clone());
        start_folder(&context, &mut role, &log, &source.name, limit, live)?;
    }
    let routes = bifold_speed::http::routes(lives).merge(health_routes(role.readiness.clone(), metrics, || false));
    role.serve(listener, routes);
    role.run_to_end().await
}

/// `bifold serve`
pub(crate) async fn serve(common: &Common, service: &Service) -> Result<(), Exit> {
    let context = Context::with(with_listen(common, service, "serve.listen")?).await?;
    refuse_local_log(&context, "serve")?;
    refuse_open_listener(&context.config)?;
    let (listener, address) = bind(&context.config.serve.listen, "serve.listen").await?;
    let mut role = Role::new("serve", address, true);
    role.drain = context.config.serve.drain;
    let log = open_log(&context, &role).await?;
    let metrics = install_metrics();
    let speed = context.config.serve.speed.iter().map(|item| speed_source(item)).collect::<Result<_, _>>();
    let catalog = catalog(&context, &log, speed.map_err(|e| Exit::Usage(format!("serve.speed: {e}")))?)?;
    let limit = StartLimit::new(context.config.startup_timeout);
    let component = role.readiness.component("serve");
    role.watch("serve", watch_store(Arc::clone(&catalog), component, limit, role.shutdown.clone()));
    let api = bifold_serving::routes(catalog, context.config.serve.clone(), None);
    role.serve(listener, api.merge(health_routes(role.readiness.clone(), metrics, are_stuck)));
    role.run_to_end().await
}

/// `bifold batch schedule`
pub(crate) async fn batch(common: &Common, service: &Service) -> Result<(), Exit> {
    let context = Context::with(with_listen(common, service, "batch.listen")?).await?;
    if matches!(context.config.batch.schedule, bifold_config::Schedule::Off) {
        let hint = "set batch.schedule to an interval or a cron expression, or use `bifold batch run`";
        return Err(Exit::Usage(format!("batch.schedule = \"off\": there is nothing to do; {hint}")));
    }
    let (listener, address) = bind(&context.config.batch.listen, "batch.listen").await?;
    let mut role = Role::new("batch", address, true);
    warn_if_open(address, "batch.listen");
    let metrics = install_metrics();
    for source in &context.pipeline.sources {
        start_schedule(&context, &mut role, &source.name)?;
    }
    role.serve(listener, health_routes(role.readiness.clone(), metrics, || false));
    role.run_to_end().await
}

/// Keeps asking store and log, and says what is missing. At start, only within the limit.
async fn watch_store(
    catalog: Arc<Catalog>,
    component: bifold_service::Component,
    limit: StartLimit,
    shutdown: Shutdown,
) -> Result<(), Exit> {
    let mut begun = false;
    loop {
        let mut trouble = vec![];
        let mut stopped = vec![];
        for source in catalog.sources.values() {
            // First the ledger: what the log is asked for after it is not behind it.
            let ledger = source.ledger().await;
            match (ledger, bifold_log::survey(&*catalog.log, &source.source.topics).await) {
                (Ok(ledger), Ok(survey)) => stopped.extend(why_stopped(&ledger, &survey)),
                (Err(problem), _) => trouble.push(problem.detail().to_string()),
                (_, Err(error)) => trouble.push(error.to_string()),
            }
        }
        if let Some(trouble) = trouble.first() {
            component.waiting(trouble);
            if !begun && limit.is_over() {
                return Err(Exit::failed(trouble));
            }
        } else {
            begun = true;
            match stopped.first() {
                None => component.ready(),
                Some(_) => component.waiting(stopped.join("; ")),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Why answers of a source go no further, though nothing is out of reach.
fn why_stopped(ledger: &Ledger, survey: &Survey) -> Vec<String> {
    let mut why: Vec<String> = survey.missing.iter().map(|topic| format!("topic {topic} does not exist")).collect();
    if !ledger.exists() {
        return why;
    }
    let other = survey.ids.iter().filter(|(topic, id)| ledger.topics.get(*topic).is_some_and(|known| known != *id));
    why.extend(other.map(|(topic, _)| {
        format!(
            "topic {topic} was deleted and made again: what the store holds is of the old one; answers go no further"
        )
    }));
    if why.is_empty() {
        let all: BTreeSet<_> = survey.bounds.keys().cloned().collect();
        let standing = ledger.standing_to_fold(&survey.ranges(&all), 0);
        why.extend((!standing.stopped.is_empty()).then(|| standing.why()));
    }
    why
}

fn catalog(context: &Context, log: &Arc<dyn Log>, speed: Vec<Arc<dyn SpeedSource>>) -> Result<Arc<Catalog>, Exit> {
    let mut specs = vec![];
    for source in &context.pipeline.sources {
        specs.push(SourceSpec {
            source: Arc::new(source.clone()),
            files: context.files(&source.name)?,
            views: context.views_of(&source.name),
        });
    }
    Ok(Arc::new(Catalog::new(specs, Arc::clone(log), speed, context.engine.clone(), context.config.serve.memory)))
}

fn start_collector(
    context: &Context,
    role: &mut Role,
    log: &Arc<dyn Log>,
    source: &str,
    limit: StartLimit,
) -> Result<(), Exit> {
    let collector = Collector {
        source: context.source(source)?,
        log: Arc::clone(log),
        files: context.files(source)?,
        options: context.config.collect.clone(),
        group: context.group(source, "collect"),
        component: role.readiness.component(format!("collect {source}")),
        others: role.readiness.ready_component(format!("collect {source}, other instances")),
        limit,
    };
    let maintain = Maintain {
        source: context.source(source)?,
        files: context.files(source)?,
        deltas: context.config.batch.compact_deltas,
        archive: context.config.batch.compact_files,
        grace: context.config.store.orphan_grace,
    };
    let shutdown = role.shutdown.clone();
    role.watch(&format!("maintain {source}"), async move {
        maintain.run(shutdown).await;
        Ok(())
    });
    role.thread(format!("collect {source}"), move |runtime, shutdown| {
        collector.run(&runtime, &shutdown).map_err(Exit::from)
    })
}

fn start_folder(
    context: &Context,
    role: &mut Role,
    log: &Arc<dyn Log>,
    source: &str,
    limit: StartLimit,
    live: Live,
) -> Result<(), Exit> {
    let folder = Folder {
        source: context.source(source)?,
        views: context.readings_of(source).cloned().collect(),
        log: Arc::clone(log),
        files: context.files(source)?,
        options: context.config.speed.clone(),
        group: context.group(source, "speed"),
        component: role.readiness.component(format!("speed {source}")),
        others: role.readiness.ready_component(format!("speed {source}, other instances")),
        limit,
        live,
    };
    role.thread(format!("speed {source}"), move |runtime, shutdown| {
        folder.run(&runtime, &shutdown).map_err(|error| match error {
            bifold_speed::Error::Store(error) => error.into(),
            bifold_speed::Error::Log(error) => error.into(),
            bifold_speed::Error::Pipeline(error) => error.into(),
            error @ bifold_speed::Error::QuarantinedDedup { .. } => Exit::Usage(error.to_string()),
            error => Exit::failed(error),
        })
    })
}

fn start_schedule(context: &Context, role: &mut Role, source: &str) -> Result<(), Exit> {
    let recompute = recompute_of(context, context.source(source)?)?;
    let (schedule, shutdown) = (context.config.batch.schedule.clone(), role.shutdown.clone());
    role.watch(&format!("batch schedule {source}"), async move {
        schedule::run(recompute, schedule, shutdown).await;
        Ok(())
    });
    Ok(())
}

/// Opens the log. A local log that another process has is an error at once.
async fn open_log(context: &Context, role: &Role) -> Result<Arc<dyn Log>, Exit> {
    tracing::debug!(role = role.name, "opening the log");
    Ok(context.log()?)
}

/// Says that a listener without authentication can be reached from other machines.
fn warn_if_open(address: std::net::SocketAddr, key: &str) {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "{key} can be reached from other machines, without authentication; keep it inside a trusted network");
    }
}

fn refuse_local_log(context: &Context, role: &str) -> Result<(), Exit> {
    match context.is_local() {
        false => Ok(()),
        true => Err(Exit::Usage(format!(
            "`bifold {role}` as a process of its own needs Kafka: the local log has one process as its writer; \
             set kafka.brokers (--brokers), or run everything in one process with `bifold up`"
        ))),
    }
}

/// Beyond loopback there has to be authentication, or the word that there need not be.
fn refuse_open_listener(config: &Config) -> Result<(), Exit> {
    let listen = &config.serve.listen;
    if listen.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(Exit::Usage(format!(
            "serve.listen = {listen:?} is no address; write HOST:PORT, such as 127.0.0.1:7070"
        )));
    }
    match config.serve.is_loopback() || config.serve.allow_anonymous {
        true => Ok(()),
        false => Err(Exit::Usage(format!(
            "serve.listen = {listen:?} is open beyond this machine without authentication; \
             listen on 127.0.0.1, or set serve.allow_anonymous = true if the network is trusted"
        ))),
    }
}
