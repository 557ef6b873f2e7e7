//! The seeds that are run, and what is said of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counts::Counts;
use crate::world;

const DEFAULT_SEEDS: u64 = 300;
const MOST_FAILURES: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_else(|| "a panic".into())
}

/// Runs seeds on all cores. What was reached, and what failed.
fn run_all(seeds: u64) -> (Counts, u64, Vec<(u64, String)>) {
    let (next, entries) = (AtomicU64::new(0), AtomicU64::new(0));
    let (counts, failures) = (Mutex::new(Counts::default()), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failures.lock().expect("no holder panics").len() >= MOST_FAILURES {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| world::run(seed, false))) {
                        Ok(ended) => {
                            entries.fetch_add(ended.entries, Ordering::Relaxed);
                            counts.lock().expect("no holder panics").add(&ended.counts);
                        }
                        Err(why) => failures.lock().expect("no holder panics").push((seed, words(&*why))),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no holder panics");
    (counts.into_inner().expect("no holder panics"), entries.into_inner(), failures)
}

#[test]
fn every_answer_and_every_entry_keeps_the_law() {
    if let Some(seed) = number("BIFOLD_SIM_SEED") {
        println!("{}", world::run(seed, true).counts.table());
        return;
    }
    let asked = number("BIFOLD_SIM_SEEDS");
    let seeds = asked.unwrap_or(DEFAULT_SEEDS);
    let started = std::time::Instant::now();
    let (counts, entries, failures) = run_all(seeds);
    if asked.is_some() {
        print!("{}", counts.table());
    }
    println!("{seeds} seeds, {entries} entries, {:.1} s", started.elapsed().as_secs_f64());
    for (seed, why) in &failures {
        println!("seed {seed}: {why}");
        println!("  BIFOLD_SIM_SEED={seed} cargo test --workspace --test simulation -- --nocapture law");
    }
    assert!(failures.is_empty(), "{} seeds break the law, the first is {}", failures.len(), failures[0].0);
    if seeds >= DEFAULT_SEEDS {
        let missing = counts.missing();
        assert!(missing.is_empty(), "these situations were never reached: {missing:#?}");
    }
}

#[test]
fn a_seed_is_the_same_story_each_time() {
    for seed in [1, 5, 7] {
        let tell = |_| catch_unwind(|| world::run(seed, false).story).ok();
        let stories: Vec<_> = (0..2).map(tell).collect();
        assert_eq!(stories[0], stories[1], "seed {seed}");
    }
}
