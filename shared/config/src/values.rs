//! Typed access to the merged values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Origin};
use crate::keys::{KEYS, Kind};

/// A value as text, with where it came from. Lists are joined by commas.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// All values, by key; the entries of a table under `table.key`.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) map: BTreeMap<String, Value>,
    /// Where relative paths of the file and of the defaults start.
    pub(crate) base: PathBuf,
}

impl Values {
    pub(crate) fn defaults(base: PathBuf) -> Self {
        let scalar = KEYS.iter().filter(|key| key.kind != Kind::Table);
        let value = |text: &str| Value { text: text.to_string(), origin: Origin::Default };
        Self { map: scalar.map(|key| (key.name.to_string(), value(key.default))).collect(), base }
    }

    pub(crate) fn set(&mut self, key: &str, text: impl Into<String>, origin: Origin) {
        self.map.insert(key.to_string(), Value { text: text.into(), origin });
    }

    fn get(&self, key: &str) -> &Value {
        self.map.get(key).expect("every key has a default")
    }

    fn parsed<T, E: std::fmt::Display>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Error> {
        let value = self.get(key);
        parse(value.text.trim()).map_err(|why| self.wrong(key, why.to_string()))
    }

    pub(crate) fn wrong(&self, key: &str, why: impl Into<String>) -> Error {
        let value = self.get(key);
        Error::Value {
            key: key.into(),
            value: without_secrets(key, &value.text),
            origin: value.origin.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.get(key).text.clone()
    }

    pub(crate) fn duration(&self, key: &str) -> Result<Duration, Error> {
        self.parsed(key, |text| {
            humantime::parse_duration(text).map_err(|e| format!("{e}; write a duration such as \"10s\" or \"15m\""))
        })
    }

    /// A duration up to `most`.
    pub(crate) fn at_most(&self, key: &str, most: Duration) -> Result<Duration, Error> {
        match self.duration(key)? {
            duration if duration > most => Err(self.wrong(key, format!("can be {most:?} at most"))),
            duration => Ok(duration),
        }
    }

    /// A duration above zero: an interval.
    pub(crate) fn interval(&self, key: &str) -> Result<Duration, Error> {
        match self.duration(key)? {
            Duration::ZERO => Err(self.wrong(key, "must be longer than zero")),
            duration => Ok(duration),
        }
    }

    pub(crate) fn size(&self, key: &str) -> Result<u64, Error> {
        self.parsed(key, |text| {
            let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
            let size = text.parse::<bytesize::ByteSize>().map(|size| size.as_u64());
            match size {
                Ok(size) if has_unit && size > 0 => Ok(size),
                Ok(0) => Err("must be larger than zero".to_string()),
                _ => Err("write a size with its unit, such as \"1MiB\" or \"2GiB\"".to_string()),
            }
        })
    }

    pub(crate) fn integer(&self, key: &str, least: u64) -> Result<u64, Error> {
        self.parsed(key, |text| match text.replace('_', "").parse::<u64>() {
            Ok(number) if number >= least && number <= i64::MAX as u64 => Ok(number),
            Ok(_) => Err(format!("must be at least {least}")),
            Err(e) => Err(e.to_string()),
        })
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<bool, Error> {
        self.parsed(key, |text| text.parse::<bool>().map_err(|_| "write true or false"))
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let text = &self.get(key).text;
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect()
    }

    pub(crate) fn table(&self, key: &str) -> BTreeMap<String, String> {
        let prefix = format!("{key}.");
        self.map.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_string(), v.text.clone()))).collect()
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        let value = self.get(key);
        self.resolve(Path::new(&value.text), &value.origin)
    }

    /// Paths given by flag or environment start at the working directory, others at the config file's folder.
    pub(crate) fn resolve(&self, path: &Path, origin: &Origin) -> PathBuf {
        match origin {
            Origin::Default | Origin::File(_) => self.base.join(path),
            Origin::Environment(_) | Origin::Flag(_) => path.to_path_buf(),
        }
    }

    pub(crate) fn origin(&self, key: &str) -> &Origin {
        &self.get(key).origin
    }
}
/// A value that may be shown: without what stands for a user in a URL, and nothing of keys that hold secrets or anything.
fn without_secrets(key: &str, text: &str) -> String {
    if ["password", "secret", "token", "properties"].iter().any(|word| key.contains(word)) {
        return "…".to_string();
    }
    match text.split_once("://") {
        Some((scheme, rest)) if rest.split('/').next().is_some_and(|authority| authority.contains('@')) => {
            let (_, host) = rest.split_once('@').expect("it is there");
            format!("{scheme}://…@{host}")
        }
        _ => text.to_string(),
    }
}
