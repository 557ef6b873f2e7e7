//! Made-up events of a shop, the same for the same seed: Zipf-like users and products, some late by up to three days,
//! some malformed.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const CATEGORIES: [&str; 6] = ["books", "garden", "kitchen", "music", "sports", "toys"];
const REGIONS: [&str; 4] = ["africa", "america", "asia", "europe"];
/// The events and how many of a hundred they are.
const EVENTS: [(&str, u32); 5] = [("view", 55), ("click", 20), ("search", 12), ("cart", 8), ("purchase", 5)];

/// An endless stream of events.
pub(super) struct Shop {
    random: StdRng,
    /// The event time that the next event lies about.
    now: DateTime<Utc>,
}

impl Shop {
    pub(super) fn new(seed: u64, start: DateTime<Utc>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), now: start }
    }

    /// Sets the time that the next events lie about.
    pub(super) fn at(&mut self, now: DateTime<Utc>) {
        self.now = now;
    }

    /// The next record. Time moves on by 20 ms with each.
    pub(super) fn next(&mut self) -> String {
        self.now += Duration::milliseconds(20);
        if self.random.random_ratio(1, 1_000) {
            return self.malformed();
        }
        let late = match self.random.random_ratio(1, 100) {
            true => Duration::seconds(self.random.random_range(0..3 * 86_400)),
            false => Duration::milliseconds(self.random.random_range(0..3_000)),
        };
        let time = (self.now - late).to_rfc3339_opts(SecondsFormat::Millis, true);
        let event = self.event();
        let product = self.rank(2_000);
        let amount = (event == "purchase").then(|| self.random.random_range(199..20_000u32));
        let mut record = json!({
            "time": time,
            "event": event,
            "user": format!("u{}", self.rank(20_000)),
            "product": (event != "search").then(|| format!("p{product}")),
            "category": CATEGORIES[product % CATEGORIES.len()],
            "region": REGIONS[self.rank(REGIONS.len())],
        })
        .to_string();
        if let Some(cents) = amount {
            // Written digit by digit: a decimal never passes through a float.
            record.pop();
            record.push_str(&format!(",\"amount\":{}.{:02}}}", cents / 100, cents % 100));
        }
        record
    }

    fn event(&mut self) -> &'static str {
        let mut at = self.random.random_range(0..100);
        for (event, share) in EVENTS {
            if at < share {
                return event;
            }
            at -= share;
        }
        EVENTS[0].0
    }

    /// A number below `count`, small ones far more often.
    fn rank(&mut self, count: usize) -> usize {
        let uniform: f64 = self.random.random();
        (uniform.powi(3) * count as f64) as usize
    }

    fn malformed(&mut self) -> String {
        match self.random.random_range(0..3) {
            0 => "{\"time\":\"2026-01-01T00:00:00Z\",\"event\":".to_string(),
            1 => "{\"time\":\"yesterday\",\"event\":\"view\"}".to_string(),
            _ => "{\"event\":\"view\",\"user\":\"u1\"}".to_string(),
        }
    }
}
