//! Reading the three places of configuration, the later over the earlier: file, environment, flags.

use std::path::{Path, PathBuf};

use crate::error::{Error, Origin};
use crate::keys::{Kind, find, nearest};
use crate::values::Values;
use crate::{Batch, Collect, Config, Kafka, Log, Schedule, Serve, Speed, Store};

/// Values given by flags.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// Keys set by other flags: key, value, the flag's name.
    pub values: Vec<(&'static str, String, &'static str)>,
}

/// Environment variables without `__` that set a key.
const SHORT: [(&str, &str); 3] =
    [("BIFOLD_PIPELINE", "pipeline"), ("BIFOLD_DATA_DIR", "data_dir"), ("BIFOLD_STARTUP_TIMEOUT", "startup_timeout")];

/// Reads the configuration: the file named by `--config`, else by `BIFOLD_CONFIG`, else `./bifold.toml` if there is
/// one; then `environment`; then `flags`.
///
/// # Errors
/// A file that cannot be read, an unknown key, or a value that its key cannot take.
pub fn load(flags: &Overrides, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Error> {
    let environment: Vec<(String, String)> = environment.filter(|(name, _)| name.starts_with("BIFOLD_")).collect();
    let named = environment.iter().find(|(name, _)| name == "BIFOLD_CONFIG").map(|(_, path)| PathBuf::from(path));
    let file = flags.config.clone().or(named).or_else(|| {
        let path = PathBuf::from("bifold.toml");
        path.exists().then_some(path)
    });
    let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf();
    let mut values = Values::defaults(base);
    if let Some(path) = file {
        read_file(&mut values, &path)?;
    }
    for (name, text) in environment {
        read_variable(&mut values, &name, text)?;
    }
    for (key, text, flag) in &flags.values {
        values.set(key, text.clone(), Origin::Flag(flag));
    }
    typed(&values)
}

fn read_file(values: &mut Values, path: &Path) -> Result<(), Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_path_buf(), source })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        Error::Syntax { path: path.to_path_buf(), line, column, why: error.message().to_string() }
    })?;
    read_table(values, "", &table, &Origin::File(path.to_path_buf()))
}

fn read_table(values: &mut Values, prefix: &str, table: &toml::Table, origin: &Origin) -> Result<(), Error> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => read_table(values, &key, inner, origin)?,
            value => set_known(values, &key, plain(value), origin.clone())?,
        }
    }
    Ok(())
}

/// The text that one would write in the environment.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn read_variable(values: &mut Values, name: &str, text: String) -> Result<(), Error> {
    let origin = Origin::Environment(name.to_string());
    if let Some((_, key)) = SHORT.iter().find(|(short, _)| *short == name) {
        values.set(key, text, origin);
        return Ok(());
    }
    match name.strip_prefix("BIFOLD_") {
        Some(rest) if rest.contains("__") => set_known(values, &rest.to_lowercase().replace("__", "."), text, origin),
        _ => Ok(()),
    }
}

fn set_known(values: &mut Values, key: &str, text: String, origin: Origin) -> Result<(), Error> {
    match find(key) {
        Some(known) if known.kind != Kind::Table || known.name != key => {
            values.set(key, text, origin);
            Ok(())
        }
        _ => Err(Error::UnknownKey { key: key.to_string(), origin, nearest: nearest(key) }),
    }
}

fn typed(values: &Values) -> Result<Config, Error> {
    let data_dir = values.path("data_dir");
    let startup_timeout = values.duration("startup_timeout")?;
    Ok(Config {
        pipeline: values.path("pipeline"),
        startup_timeout: (!startup_timeout.is_zero()).then_some(startup_timeout),
        store: Store { url: store_url(values, &data_dir)?, orphan_grace: values.interval("store.orphan_grace")? },
        data_dir,
        kafka: Kafka {
            brokers: values.text("kafka.brokers"),
            group_prefix: values.text("kafka.group_prefix"),
            properties: values.table("kafka.properties"),
        },
        log: Log { partitions: values.integer("log.partitions", 1)?.min(10_000) as i32 },
        collect: Collect {
            flush_interval: values.interval("collect.flush_interval")?,
            flush_rows: values.integer("collect.flush_rows", 1)?,
            max_record: values.size("collect.max_record")?,
            max_elements: values.integer("collect.max_elements", 1)?,
            listen: values.text("collect.listen"),
        },
        speed: Speed {
            epoch_interval: values.interval("speed.epoch_interval")?,
            epoch_rows: values.integer("speed.epoch_rows", 1)?,
            memory: values.size("speed.memory")?,
            listen: values.text("speed.listen"),
        },
        batch: Batch {
            schedule: schedule(values)?,
            memory: values.size("batch.memory")?,
            leap: values.integer("batch.leap", 0)? as i64,
            leap_after: values.duration("batch.leap_after")?,
            compact_deltas: values.integer("batch.compact_deltas", 2)? as usize,
            compact_files: values.integer("batch.compact_files", 2)? as usize,
            listen: values.text("batch.listen"),
        },
        serve: Serve {
            listen: values.text("serve.listen"),
            speed: values.list("serve.speed"),
            query_timeout: values.interval("serve.query_timeout")?,
            max_timeout: values.interval("serve.max_timeout")?,
            memory: values.size("serve.memory")?,
            query_memory: values.size("serve.query_memory")?,
            max_result_rows: values.integer("serve.max_result_rows", 1)?,
            drain: values.at_most("serve.drain", std::time::Duration::from_secs(20))?,
            allow_anonymous: values.boolean("serve.allow_anonymous")?,
            ingest: values.boolean("serve.ingest")?,
            cors: values.list("serve.cors"),
        },
    })
}

fn schedule(values: &Values) -> Result<Schedule, Error> {
    let text = values.text("batch.schedule");
    let text = text.trim();
    if text == "off" {
        return Ok(Schedule::Off);
    }
    if text.split_whitespace().count() >= 5 {
        return Ok(Schedule::Cron(text.to_string()));
    }
    match humantime::parse_duration(text) {
        Ok(every) if !every.is_zero() => Ok(Schedule::Every(every)),
        _ => Err(values.wrong("batch.schedule", "write an interval (\"15m\"), a cron expression or \"off\"")),
    }
}

fn store_url(values: &Values, data_dir: &Path) -> Result<String, Error> {
    let text = values.text("store.url");
    let file = |path: PathBuf| {
        let path = std::path::absolute(&path).map_err(|e| values.wrong("store.url", e.to_string()))?;
        Ok(format!("file://{}", path.display()))
    };
    match text.split_once("://") {
        _ if text.is_empty() => file(data_dir.join("store")),
        Some(("file" | "s3" | "gs" | "az", _)) => Ok(text),
        Some((scheme, _)) => {
            Err(values
                .wrong("store.url", format!("unknown scheme {scheme:?}; use a path, file://, s3://, gs:// or az://")))
        }
        None => file(values.resolve(Path::new(&text), values.origin("store.url"))),
    }
}
