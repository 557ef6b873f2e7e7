//! Random logs: several partitions of two topics, offsets with gaps, late events, ties in event time, NULLs, several
//! events in a record, and records that are no events.

use std::fmt::Write;

use bifold_fold::Envelope;
use proptest::prelude::*;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::json;

/// The source that every log here is of.
pub(super) const SOURCE: &str = r#"
CREATE TABLE events (
  time TIMESTAMP, channel TEXT, page TEXT, "user" TEXT, n BIGINT, small INT, price DOUBLE, weight DOUBLE, wild DOUBLE,
  cost DECIMAL(12,2), big DECIMAL(38,4), ok BOOLEAN, tags TEXT[], geo STRUCT<city TEXT>, extra JSON,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'events,more', format = 'json', event_time_min = '2015-01-01T00:00:00Z');
"#;

/// The partitions of a log.
pub(super) const PARTITIONS: [(&str, i32); 3] = [("events", 0), ("events", 1), ("more", 0)];

/// One record, where it stands and what is to be seen in it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The place in [`PARTITIONS`].
    pub(super) partition: usize,
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) value: Vec<u8>,
    /// How many events it holds.
    pub(super) events: usize,
    /// How many dead letters it makes.
    pub(super) dead: usize,
}

impl Record {
    /// The record as a decoder takes it.
    pub(super) fn envelope(&self) -> Envelope<'_> {
        let (topic, partition) = PARTITIONS[self.partition];
        Envelope { topic, partition, offset: self.offset, timestamp_ms: self.timestamp_ms, value: &self.value }
    }
}

/// An event to be, or why it is none.
#[derive(Clone, Debug)]
pub(super) struct Event {
    half_minutes: u32,
    /// Whether it comes three days late.
    late: bool,
    channel: Option<u8>,
    page: Option<u8>,
    user: Option<u16>,
    n: Option<i16>,
    small: Option<i8>,
    /// In eighths, so that sums are exact.
    price: Option<i16>,
    weight: Option<i16>,
    /// Any digits.
    wild: Option<f64>,
    cents: Option<i32>,
    ok: Option<bool>,
    tags: Option<Vec<u8>>,
    flaw: Option<Flaw>,
}

/// Why an element is no event.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    NoTime,
    NullTime,
    BeforeTheBound,
    TextForNumber,
    TooManyDigits,
    NoObject,
}

/// What a record looks like.
#[derive(Clone, Copy, Debug)]
enum Form {
    Single,
    Array,
    Lines,
    Empty,
    Spaces,
    NotUtf8,
    Half,
    HalfArray,
    TooLarge,
}

/// The records of a log, in no order between partitions.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    partition: usize,
    form: Form,
    gap: u8,
    timed: bool,
    events: Vec<Event>,
}

/// A log of up to `most` records.
pub(super) fn drafts(most: usize) -> impl Strategy<Value = Vec<Draft>> {
    let form = prop_oneof![
        12 => Just(Form::Single), 4 => Just(Form::Array), 4 => Just(Form::Lines), 1 => Just(Form::Empty),
        1 => Just(Form::Spaces), 1 => Just(Form::NotUtf8), 1 => Just(Form::Half), 1 => Just(Form::HalfArray),
        1 => Just(Form::TooLarge),
    ];
    let gap = prop_oneof![8 => Just(0u8), 1 => 1..4u8];
    let draft = (0..PARTITIONS.len(), form, gap, any::<bool>(), prop::collection::vec(event(), 1..4));
    let draft = draft.prop_map(|(partition, form, gap, timed, events)| Draft { partition, form, gap, timed, events });
    prop::collection::vec(draft, 0..=most)
}

fn event() -> impl Strategy<Value = Event> {
    let flaw = prop_oneof![
        Just(Flaw::NoTime),
        Just(Flaw::NullTime),
        Just(Flaw::BeforeTheBound),
        Just(Flaw::TextForNumber),
        Just(Flaw::TooManyDigits),
        Just(Flaw::NoObject),
    ];
    let texts = (
        prop::option::weighted(0.9, 0..3u8),
        prop::option::weighted(0.9, 0..7u8),
        prop::option::weighted(0.9, 0..40u16),
    );
    let numbers = (
        prop::option::weighted(0.85, -50..50i16),
        prop::option::weighted(0.8, -20..20i8),
        prop::option::weighted(0.8, -80..80i16),
    );
    let doubles = (prop::option::weighted(0.8, 0..400i16), prop::option::weighted(0.8, 0.001..1000.0f64));
    let others = (
        prop::option::weighted(0.8, -100_000..100_000i32),
        prop::option::weighted(0.8, any::<bool>()),
        prop::option::weighted(0.7, prop::collection::vec(0..4u8, 0..3)),
    );
    let time = (0..160u32, prop::bool::weighted(0.05));
    (time, texts, numbers, doubles, others, prop::option::weighted(0.05, flaw)).prop_map(
        |(time, texts, numbers, doubles, others, flaw)| Event {
            half_minutes: time.0,
            late: time.1,
            channel: texts.0,
            page: texts.1,
            user: texts.2,
            n: numbers.0,
            small: numbers.1,
            price: numbers.2,
            weight: doubles.0,
            wild: doubles.1,
            cents: others.0,
            ok: others.1,
            tags: others.2,
            flaw,
        },
    )
}

/// The longest record that is decoded.
pub(super) const MAX_RECORD: u64 = 4_000;

const CHANNELS: [&str; 3] = ["#en.wikipedia", "#de.wikipedia", ""];
// Short ones and long ones (more than 12 bytes): Arrow's views treat them differently.
const PAGES: [&str; 7] =
    ["a", "B", "página principal", "Ünïcode page of some length", "日本語", "x\"y\\z\n", "twelve bytes"];

/// Writes the records of `drafts` as a producer would: `seed` decides the order of keys and how numbers look.
pub(super) fn written(drafts: &[Draft], seed: u64) -> Vec<Record> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut next = [0i64; PARTITIONS.len()];
    let record = |draft: &Draft| {
        next[draft.partition] += i64::from(draft.gap);
        let offset = next[draft.partition];
        next[draft.partition] += 1;
        let (value, events, dead) = value_of(draft, &mut rng);
        let timestamp_ms = if draft.timed { 1_442_016_000_000 + offset * 977 } else { -1 };
        Record { partition: draft.partition, offset, timestamp_ms, value, events, dead }
    };
    drafts.iter().map(record).collect()
}

/// A record's bytes, and how many events and dead letters they are.
fn value_of(draft: &Draft, rng: &mut StdRng) -> (Vec<u8>, usize, usize) {
    let texts: Vec<String> = draft.events.iter().map(|event| text_of(event, rng)).collect();
    let bad = draft.events.iter().filter(|event| event.flaw.is_some()).count();
    let counted = |text: String| (text.into_bytes(), draft.events.len() - bad, bad);
    let no_object = |event: &Event| matches!(event.flaw, Some(Flaw::NoObject));
    let whole = |bytes: Vec<u8>| (bytes, 0, 1);
    match draft.form {
        Form::Array => counted(format!(" [{}]", texts.join(" ,\n"))),
        // Lines of which none is an object are no lines of events.
        Form::Lines if draft.events.len() > 1 && draft.events.iter().all(no_object) => {
            whole(texts.join("\n").into_bytes())
        }
        Form::Lines => counted(texts.join("\r\n\n") + "\n"),
        Form::Empty => whole(vec![]),
        Form::Spaces => whole(b" \n\t".to_vec()),
        Form::NotUtf8 => whole([texts[0].as_bytes(), &[0xff]].concat()),
        Form::Half => whole(texts[0].as_bytes()[..texts[0].len() / 2].to_vec()),
        Form::HalfArray => whole(format!("[{},", texts[0]).into_bytes()),
        Form::TooLarge => whole(format!("{}{}", " ".repeat(MAX_RECORD as usize), texts[0]).into_bytes()),
        Form::Single => {
            let bad = usize::from(draft.events[0].flaw.is_some());
            (texts[0].clone().into_bytes(), 1 - bad, bad)
        }
    }
}

fn text_of(event: &Event, rng: &mut StdRng) -> String {
    if let Some(Flaw::NoObject) = event.flaw {
        return "42".to_string();
    }
    let mut fields: Vec<(&str, String)> = vec![];
    let mut put = |rng: &mut StdRng, name: &'static str, value: Option<String>| match value {
        Some(value) => fields.push((name, value)),
        // NULL is a null or nothing at all.
        None if rng.random() => fields.push((name, "null".to_string())),
        None => {}
    };
    let text = |text: &str| json!(text).to_string();
    put(rng, "channel", event.channel.map(|i| text(CHANNELS[usize::from(i)])));
    put(rng, "page", event.page.map(|i| text(PAGES[usize::from(i)])));
    put(rng, "user", event.user.map(|i| text(&format!("{}{i}", if i % 2 == 0 { "u" } else { "somebody number " }))));
    let n = event.n.map(|n| match rng.random_range(0..5) {
        4 => format!("\"{n}\""),
        0 => format!("{n}.0"),
        1 if n != 0 => format!("{n}0e-1"),
        _ => n.to_string(),
    });
    put(rng, "n", if matches!(event.flaw, Some(Flaw::TextForNumber)) { Some("\"7 \"".to_string()) } else { n });
    put(rng, "small", event.small.map(|n| n.to_string()));
    put(rng, "price", event.price.map(|n| format!("{:?}", f64::from(n) / 8.0)));
    put(rng, "weight", event.weight.map(|n| format!("{:?}", f64::from(n) / 8.0)));
    put(rng, "wild", event.wild.map(|n| format!("{n:?}")));
    let cost = event.cents.map(|cents| {
        let sign = if cents < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
    });
    let many_digits = matches!(event.flaw, Some(Flaw::TooManyDigits));
    put(rng, "cost", if many_digits { Some("1.234".to_string()) } else { cost });
    put(rng, "big", event.cents.map(|cents| format!("{}.125", i128::from(cents) * 10i128.pow(17))));
    put(rng, "ok", event.ok.map(|ok| ok.to_string()));
    let tags = event.tags.as_ref().map(|tags| tags.iter().map(|tag| format!("t{tag}")).collect::<Vec<_>>());
    put(rng, "tags", tags.map(|tags| json!(tags).to_string()));
    put(rng, "geo", event.channel.map(|i| format!("{{\"city\":\"city {i}\",\"zip\":[1,{{}}]}}")));
    put(rng, "extra", event.small.map(|n| format!("{{\"deep\":[{n}, null]}}")));
    put(rng, "unknown", Some("{\"a\":[1,2,{\"b\":null}]}".to_string()));
    match event.flaw {
        Some(Flaw::NoTime) => {}
        Some(Flaw::NullTime) => put(rng, "time", Some("null".to_string())),
        Some(Flaw::BeforeTheBound) => put(rng, "time", Some("\"2014-12-31T23:59:59.999999Z\"".to_string())),
        _ => {
            let time = time_of(event, rng);
            put(rng, "time", Some(time));
        }
    }
    fields.shuffle(rng);
    let mut object = String::from("{");
    for (i, (name, value)) in fields.iter().enumerate() {
        write!(object, "{}\"{name}\":{value}", if i > 0 { ", " } else { "" }).expect("a String takes all");
    }
    object + "}"
}

/// The event time: on half minutes, so that ties are many.
fn time_of(event: &Event, rng: &mut StdRng) -> String {
    let (minute, second) = (event.half_minutes / 2, event.half_minutes % 2 * 30);
    let (hour, minute) = (minute / 60, minute % 60);
    let day = if event.late { 9 } else { 12 };
    match rng.random_range(0..3) {
        0 => format!("\"2015-09-{day:02} {hour:02}:{minute:02}:{second:02}\""),
        1 => format!("\"2015-09-{day:02}T{:02}:{minute:02}:{second:02}.000+02:00\"", hour + 2),
        _ => format!("\"2015-09-{day:02}T{hour:02}:{minute:02}:{second:02}Z\""),
    }
}
