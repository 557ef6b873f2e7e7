//! What the services say of themselves, in one place.

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Exit;

/// The services now.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Status {
    /// Where the serving layer listens.
    pub(crate) url: String,
    /// What readiness waits for; empty: ready.
    pub(crate) waits: Vec<String>,
    /// Resident memory of all processes that answered, in bytes.
    pub(crate) memory_bytes: f64,
    /// Cores that they used since the last look; null at the first.
    pub(crate) cores: Option<f64>,
    /// The sources.
    pub(crate) sources: Vec<Source>,
    /// The views.
    pub(crate) views: Vec<View>,
}

/// A source.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    /// Offsets that the archive lacks of the log.
    pub(crate) lag_collect: Option<f64>,
    /// Offsets that the fold lacks of the log.
    pub(crate) lag_speed: Option<f64>,
    /// Events folded a second since the last look.
    pub(crate) events_per_second: Option<f64>,
    /// Seconds since the speed layer had folded all that the log held.
    pub(crate) freshness_seconds: Option<f64>,
    /// Epochs that the speed layer has committed.
    pub(crate) epochs: Option<f64>,
    /// Of the open epoch: events, bytes in memory, slices.
    pub(crate) epoch_events: Option<f64>,
    pub(crate) epoch_bytes: Option<f64>,
    pub(crate) epoch_slices: Option<f64>,
    /// Records and elements that could not be decoded.
    pub(crate) dead_letters: u64,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition: `[origin, batch)` is answered from batch views, `[batch, speed)` from the speed layer.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) partition: i64,
    pub(crate) origin: i64,
    pub(crate) batch: i64,
    pub(crate) speed: i64,
    pub(crate) log_end: i64,
}

/// A view.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) version: String,
    /// `ready` or `building`.
    pub(crate) state: String,
    /// From 0 to 1: how much of a version that is being built a batch run can build now.
    pub(crate) progress: f64,
    /// Groups and bytes of the batch view.
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
    /// Seconds since its batch view was published; null where the speed layer does not say.
    pub(crate) batch_age_seconds: Option<f64>,
}

/// Looks at the services again and again.
pub(crate) struct Watch {
    serve: Client,
    roles: Vec<Client>,
    last: Option<(Instant, Metrics)>,
}

impl Watch {
    pub(crate) fn new(serve: Client, roles: Vec<Client>) -> Self {
        Self { serve, roles, last: None }
    }

    pub(crate) fn url(&self) -> &str {
        self.serve.url()
    }

    /// Asks every service once. A role that does not answer is left out; the serving layer has to.
    pub(crate) async fn look(&mut self) -> Result<Status, Exit> {
        let mut text = self.serve.get("/metrics").await?.answer()?.text;
        for role in &self.roles {
            if let Ok(reply) = role.get("/metrics").await {
                text.push('\n');
                text.push_str(&reply.text);
            }
        }
        let readiness = self.serve.get("/readyz").await?.json()?;
        let views = self.serve.get("/v1/views").await?.answer()?.json()?;
        let sources = self.serve.get("/v1/sources").await?.answer()?.json()?;
        let (now, metrics) = (Instant::now(), Metrics::parse(&text));
        let before = self.last.as_ref().map(|(at, metrics)| (now.duration_since(*at).as_secs_f64(), metrics));
        let status = status(self.serve.url(), &readiness, &views, &sources, &metrics, before);
        self.last = Some((now, metrics));
        Ok(status)
    }
}

fn status(
    url: &str,
    readiness: &Value,
    views: &Value,
    sources: &Value,
    metrics: &Metrics,
    before: Option<(f64, &Metrics)>,
) -> Status {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let rate = |name: &str, label: Option<&str>| {
        let (seconds, before) = before?;
        Some(((metrics.sum(name, label)? - before.sum(name, label)?) / seconds.max(0.001)).max(0.0))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let age = |at: f64| (now - at).max(0.0);
    let views_of: Vec<Value> = list(&views["views"]);
    let source = |source: &Value| {
        let name = source["name"].as_str().unwrap_or_default();
        let of = format!("source=\"{name}\"");
        let sum = |metric: &str| metrics.sum(metric, Some(&of));
        let lag = |role: &str| metrics.sum("bifold_lag_offsets", Some(&format!("{of}|role=\"{role}\"")));
        let coverages = || views_of.iter().filter(|view| view["source"] == name).map(|view| &view["coverage"]);
        let coverage: Vec<Value> = coverages().flat_map(|coverage| list(&coverage["partitions"])).collect();
        // A view's coverage has those that are not archived yet.
        let newest_dead = coverages().filter_map(|coverage| coverage["dead_letters"].as_u64()).max();
        let mut dead_letters = 0;
        let partitions = list(&source["partitions"]).into_iter().map(|row| {
            dead_letters += row["dead_letters"].as_u64().unwrap_or(0);
            partition(&row, &coverage)
        });
        let partitions = partitions.collect();
        Source {
            name: name.to_string(),
            partitions,
            lag_collect: lag("collect"),
            lag_speed: lag("speed"),
            events_per_second: rate("bifold_folded_events_total", Some(&of)),
            freshness_seconds: sum("bifold_folded_timestamp_seconds").filter(|at| *at > 0.0).map(age),
            epochs: sum("bifold_epochs_total"),
            epoch_events: sum("bifold_epoch_events"),
            epoch_bytes: sum("bifold_epoch_bytes"),
            epoch_slices: sum("bifold_epoch_slices"),
            dead_letters: dead_letters.max(newest_dead.unwrap_or(0)),
        }
    };
    let view = |view: &Value| {
        let text = |member: &str| view[member].as_str().unwrap_or_default().to_string();
        let published = format!("source=\"{}\"|view=\"{}\"", text("source"), text("name"));
        View {
            name: text("name"),
            source: text("source"),
            version: text("version"),
            state: if view["building"].is_null() { text("state") } else { "building".to_string() },
            progress: view["building"]["progress"].as_f64().or(view["progress"].as_f64()).unwrap_or(0.0),
            groups: view["size"]["batch_groups"].as_u64().unwrap_or(0),
            bytes: view["size"]["batch_bytes"].as_u64().unwrap_or(0),
            batch_age_seconds: metrics.sum("bifold_published_timestamp_seconds", Some(&published)).map(age),
        }
    };
    Status {
        url: url.to_string(),
        waits: list(&readiness["reasons"])
            .iter()
            .map(|reason| reason.as_str().unwrap_or_default().to_string())
            .collect(),
        memory_bytes: metrics.sum("process_resident_memory_bytes", None).unwrap_or(0.0),
        cores: rate("process_cpu_seconds_total", None),
        sources: list(&sources["sources"]).iter().map(source).collect(),
        views: views_of.iter().map(view).collect(),
    }
}

/// A partition of `/v1/sources` with what the views' coverage says of it: what all of them have.
fn partition(row: &Value, coverage: &[Value]) -> Partition {
    let at = |member: &str| row[member].as_i64().unwrap_or(0);
    let ends = |layer: &str| {
        let same =
            coverage.iter().filter(|part| part["topic"] == row["topic"] && part["partition"] == row["partition"]);
        same.filter_map(|part| part[layer][1].as_i64()).min()
    };
    let origin = at("origin");
    let batch = ends("batch").unwrap_or(origin);
    let speed = ends("speed").unwrap_or(origin).max(batch);
    Partition {
        topic: row["topic"].as_str().unwrap_or_default().to_string(),
        partition: at("partition"),
        origin,
        batch,
        speed,
        log_end: at("log_end").max(speed),
    }
}

/// Samples of Prometheus' text format.
#[derive(Debug)]
struct Metrics(Vec<(String, String, f64)>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_string(), labels.trim_end_matches('}').to_string(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of a metric's samples that have these labels, written `name="value"` and parted by `|`.
    fn sum(&self, name: &str, labels: Option<&str>) -> Option<f64> {
        let fits = |of: &str| labels.is_none_or(|labels| labels.split('|').all(|label| of.contains(label)));
        let mut samples =
            self.0.iter().filter(|(n, of, _)| n == name && fits(of)).map(|(_, _, value)| *value).peekable();
        samples.peek()?;
        Some(samples.sum())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const METRICS: &str = "# TYPE bifold_lag_offsets gauge\n\
        bifold_lag_offsets{source=\"shop\",topic=\"shop\",partition=\"0\",role=\"speed\"} 3\n\
        bifold_lag_offsets{source=\"shop\",topic=\"shop\",partition=\"1\",role=\"speed\"} 4\n\
        bifold_lag_offsets{source=\"shop\",topic=\"shop\",partition=\"1\",role=\"collect\"} 10\n\
        bifold_folded_events_total{source=\"shop\"} 500\n\
        process_resident_memory_bytes 1000\n";

    #[test]
    fn samples_are_summed_by_their_labels() {
        let metrics = Metrics::parse(METRICS);
        assert_eq!(metrics.sum("bifold_lag_offsets", Some("source=\"shop\"|role=\"speed\"")), Some(7.0));
        assert_eq!(metrics.sum("bifold_lag_offsets", None), Some(17.0));
        assert_eq!(metrics.sum("bifold_lag_offsets", Some("source=\"other\"")), None);
    }

    #[test]
    fn a_partition_reaches_as_far_as_all_views_do() {
        let row = json!({"topic": "shop", "partition": 1, "origin": 5, "log_end": 90});
        let part = |batch: i64, speed: i64| json!({"topic": "shop", "partition": 1, "batch": [5, batch], "speed": [batch, speed]});
        let other = json!({"topic": "shop", "partition": 0, "batch": [0, 1], "speed": [1, 2]});
        let found = partition(&row, &[part(40, 80), part(30, 85), other]);
        let expected =
            Partition { topic: "shop".to_string(), partition: 1, origin: 5, batch: 30, speed: 80, log_end: 90 };
        assert_eq!(found, expected);
        let uncovered = partition(&row, &[]);
        assert_eq!((uncovered.batch, uncovered.speed, uncovered.log_end), (5, 5, 90));
    }

    #[test]
    fn rates_are_those_since_the_last_look() {
        let (before, now) = (Metrics::parse(METRICS), Metrics::parse(&METRICS.replace("500", "900")));
        let sources = json!({"sources": [{"name": "shop", "partitions": []}]});
        let status = status("", &json!({}), &json!({}), &sources, &now, Some((2.0, &before)));
        assert_eq!(status.sources[0].events_per_second, Some(200.0));
        assert_eq!((status.sources[0].lag_speed, status.sources[0].lag_collect), (Some(7.0), Some(10.0)));
        assert_eq!(status.memory_bytes, 1000.0);
    }
}
