//! Made-up events of a shop, the same for the same seed: people who come, search, look, put into carts and sometimes buy.
//! One in a hundred comes up to three days late, five in a thousand come twice, one in a thousand is malformed.

use std::collections::VecDeque;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const REGIONS: [&str; 4] = ["africa", "america", "asia", "europe"];
/// Categories, and what people search in them.
const CATEGORIES: [(&str, [&str; 4]); 6] = [
    ("books", ["cookbook", "novel", "atlas", "comics"]),
    ("garden", ["hose", "roses", "seeds", "spade"]),
    ("kitchen", ["knife", "pan", "kettle", "scales"]),
    ("music", ["guitar", "headphones", "vinyl", "flute"]),
    ("sports", ["ball", "running shoes", "tent", "bicycle pump"]),
    ("toys", ["puzzle", "robot", "kite", "building blocks"]),
];
const USERS: usize = 20_000;
const PRODUCTS: usize = 2_000;
/// People in the shop at once.
const PRESENT: usize = 200;
/// Events that may come a second time.
const RECENT: usize = 1_000;

/// An endless stream of events.
pub(super) struct Shop {
    seed: u64,
    random: StdRng,
    /// The event time that the next event lies about.
    now: DateTime<Utc>,
    visits: Vec<Visit>,
    visits_begun: u64,
    events: u64,
    recent: VecDeque<String>,
}

/// Somebody's way through the shop.
struct Visit {
    id: u64,
    user: usize,
    category: usize,
    product: usize,
    /// What is still to come, next last.
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    Search,
    View,
    Click,
    Cart,
    Purchase,
}

impl Shop {
    pub(super) fn new(seed: u64, start: DateTime<Utc>) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let mut shop =
            Self { seed, random, now: start, visits: vec![], visits_begun: 0, events: 0, recent: VecDeque::new() };
        for _ in 0..PRESENT {
            let visit = shop.visit();
            shop.visits.push(visit);
        }
        shop
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
        if self.random.random_ratio(5, 1_000)
            && let Some(again) = self.recent.get(self.random.random_range(0..RECENT))
        {
            return again.clone();
        }
        let record = self.event();
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(record.clone());
        record
    }

    /// The next step of somebody who is here.
    fn event(&mut self) -> String {
        let who = self.random.random_range(0..self.visits.len());
        let Some(step) = self.visits[who].steps.pop() else {
            self.visits[who] = self.visit();
            return self.event();
        };
        if matches!(step, Step::View) {
            // One looks at something else of the same category; some things far more often.
            let of_category = self.rank(PRODUCTS / CATEGORIES.len());
            self.visits[who].product = of_category * CATEGORIES.len() + self.visits[who].category;
        }
        let late = match self.random.random_ratio(1, 100) {
            true => Duration::seconds(self.random.random_range(0..3 * 86_400)),
            false => Duration::milliseconds(self.random.random_range(0..3_000)),
        };
        let cents = self.random.random_range(199..20_000u32);
        let word = self.random.random_range(0..4);
        self.events += 1;
        let visit = &self.visits[who];
        let (category, words) = CATEGORIES[visit.category];
        let name = match step {
            Step::Search => "search",
            Step::View => "view",
            Step::Click => "click",
            Step::Cart => "cart",
            Step::Purchase => "purchase",
        };
        let searching = matches!(step, Step::Search);
        let mut record = json!({
            "event_id": format!("e{}-{}", self.seed, self.events),
            "time": (self.now - late).to_rfc3339_opts(SecondsFormat::Millis, true),
            "event": name,
            "user": format!("u{}", visit.user),
            "session": format!("s{}", visit.id),
            "region": REGIONS[visit.user % 7 % REGIONS.len()],
            "category": category,
            "product": (!searching).then(|| format!("p{}", visit.product)),
            "query": searching.then(|| words[word]),
        })
        .to_string();
        if matches!(step, Step::Purchase) {
            // Written digit by digit: a decimal never passes through a float.
            record.pop();
            record.push_str(&format!(",\"amount\":{}.{:02}}}", cents / 100, cents % 100));
        }
        record
    }

    /// A new visit: most people search, look at some things and leave.
    fn visit(&mut self) -> Visit {
        self.visits_begun += 1;
        let mut steps = vec![];
        if self.random.random_ratio(6, 10) {
            steps.push(Step::Search);
        }
        for _ in 0..self.random.random_range(1..6) {
            steps.push(Step::View);
            if self.random.random_ratio(4, 10) {
                steps.push(Step::Click);
            }
        }
        if self.random.random_ratio(4, 10) {
            steps.push(Step::Cart);
            if self.random.random_ratio(6, 10) {
                steps.push(Step::Purchase);
            }
        }
        steps.reverse();
        let (user, category) = (self.rank(USERS), self.rank(CATEGORIES.len()));
        Visit { id: self.visits_begun, user, category, product: category, steps }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn records(seed: u64, count: usize) -> Vec<String> {
        let start = DateTime::parse_from_rfc3339("2026-01-05T08:00:00Z").expect("a time").with_timezone(&Utc);
        let mut shop = Shop::new(seed, start);
        (0..count).map(|_| shop.next()).collect()
    }

    #[test]
    fn a_seed_repeats_the_stream() {
        assert_eq!(records(7, 5_000), records(7, 5_000));
        assert_ne!(records(7, 100), records(8, 100));
    }

    #[test]
    fn shares_are_as_said() {
        let records = records(1, 100_000);
        let time = |event: &Value| DateTime::parse_from_rfc3339(event["time"].as_str()?).ok();
        let events: Vec<Value> = records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect();
        let good: Vec<&Value> = events.iter().filter(|event| time(event).is_some()).collect();
        let malformed = records.len() - good.len();
        assert!((50..200).contains(&malformed), "{malformed} malformed");
        let ids: BTreeSet<&str> = good.iter().filter_map(|event| event["event_id"].as_str()).collect();
        let twice = good.len() - ids.len();
        assert!((300..700).contains(&twice), "{twice} come twice");
        let mut newest = None;
        let mut late = 0;
        for at in good.iter().filter_map(|event| time(event)) {
            late += usize::from(newest.is_some_and(|newest| newest - at > Duration::seconds(60)));
            newest = newest.max(Some(at));
        }
        assert!((700..1_500).contains(&late), "{late} are late");
    }

    #[test]
    fn visits_make_sense() {
        let mut visits: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in records(1, 50_000) {
            let Ok(event) = serde_json::from_str::<Value>(&record) else { continue };
            let (Some(id), Some(session)) = (event["event_id"].as_str(), event["session"].as_str()) else { continue };
            if seen.insert(id.to_string()) {
                visits.entry(session.to_string()).or_default().push(event.clone());
            }
        }
        assert!(visits.len() > 3_000, "{}", visits.len());
        for (session, events) in visits {
            let one = |field: &str| events.iter().all(|event| event[field] == events[0][field]);
            assert!(one("user") && one("region") && one("category"), "{session}: {events:?}");
            let bought = events.iter().position(|event| event["event"] == "purchase");
            if let Some(bought) = bought {
                assert_eq!(bought, events.len() - 1, "{session}: a purchase is the end");
                assert_eq!(events[bought - 1]["event"], "cart", "{session}");
                assert_eq!(events[bought - 1]["product"], events[bought]["product"], "{session}");
            }
            for event in &events {
                assert_eq!(event["query"].is_string(), event["event"] == "search", "{event}");
                assert_eq!(event["amount"].is_number(), event["event"] == "purchase", "{event}");
            }
        }
    }
}
