//! The keys there are, their types and their defaults.

/// What a key's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path, relative to the config file's folder or the working directory.
    Path,
    /// A span of time with a unit.
    Duration,
    /// A number of bytes with a unit.
    Size,
    /// A whole number.
    Integer,
    /// true or false.
    Boolean,
    /// A list of texts.
    List,
    /// A table of texts under keys of its own.
    Table,
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with dots.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default, as one would write it in the environment.
    pub default: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default }
}

/// All keys.
pub const KEYS: &[Key] = &[
    key("pipeline", Kind::Path, "pipeline.sql"),
    key("data_dir", Kind::Path, "bifold-data"),
    key("startup_timeout", Kind::Duration, "60s"),
    key("store.url", Kind::Text, ""),
    key("store.orphan_grace", Kind::Duration, "1h"),
    key("kafka.brokers", Kind::Text, ""),
    key("kafka.group_prefix", Kind::Text, "bifold"),
    key("kafka.properties", Kind::Table, ""),
    key("log.partitions", Kind::Integer, "4"),
    key("collect.flush_interval", Kind::Duration, "10s"),
    key("collect.flush_rows", Kind::Integer, "500000"),
    key("collect.max_record", Kind::Size, "1MiB"),
    key("collect.max_elements", Kind::Integer, "100000"),
    key("collect.listen", Kind::Text, "127.0.0.1:7072"),
    key("speed.epoch_interval", Kind::Duration, "10s"),
    key("speed.epoch_rows", Kind::Integer, "5000000"),
    key("speed.memory", Kind::Size, "1GiB"),
    key("speed.listen", Kind::Text, "127.0.0.1:7071"),
    key("batch.schedule", Kind::Text, "15m"),
    key("batch.memory", Kind::Size, "2GiB"),
    key("batch.leap", Kind::Integer, "10000000"),
    key("batch.leap_after", Kind::Duration, "1m"),
    key("batch.compact_deltas", Kind::Integer, "100"),
    key("batch.compact_files", Kind::Integer, "100"),
    key("batch.listen", Kind::Text, "127.0.0.1:7073"),
    key("serve.listen", Kind::Text, "127.0.0.1:7070"),
    key("serve.speed", Kind::List, "http://127.0.0.1:7071"),
    key("serve.query_timeout", Kind::Duration, "30s"),
    key("serve.max_timeout", Kind::Duration, "10m"),
    key("serve.query_memory", Kind::Size, "1GiB"),
    key("serve.memory", Kind::Size, "2GiB"),
    key("serve.max_result_rows", Kind::Integer, "1000000"),
    key("serve.drain", Kind::Duration, "0s"),
    key("serve.allow_anonymous", Kind::Boolean, "false"),
    key("serve.ingest", Kind::Boolean, "true"),
    key("serve.cors", Kind::List, ""),
];

/// The key of this name, or of the table that it stands in.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| {
        key.name == name
            || (key.kind == Kind::Table && name.strip_prefix(key.name).is_some_and(|rest| rest.starts_with('.')))
    })
}

/// The key whose name is nearest to `name`.
pub(crate) fn nearest(name: &str) -> &'static str {
    let distance = |key: &&Key| {
        let last = key.name.rsplit('.').next().expect("a split has a last part");
        // What is only cut short is nearest.
        match key.name.starts_with(name) || last.starts_with(name) {
            true => 0,
            false => strsim::damerau_levenshtein(key.name, name).min(strsim::damerau_levenshtein(last, name)),
        }
    };
    KEYS.iter().min_by_key(distance).expect("there are keys").name
}
