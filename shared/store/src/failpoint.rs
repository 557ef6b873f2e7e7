//! Named places between durable effects where a test can end the process, as `kill -9` would.
//!
//! Only debug builds have them. `BIFOLD_FAILPOINT=name` ends the process at the first visit of `name`,
//! `BIFOLD_FAILPOINT=name:3` at the third. The table of names is in `docs/failpoints.md`.

/// Ends the process here if a test asked for it.
#[inline]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    armed::visit(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Whether a test asked for a failure at `place`, such as an offset, by `BIFOLD_FAILS=name:place`. It fails at every visit; a release
/// build never fails here.
#[inline]
pub fn fails(name: &str, place: i64) -> bool {
    #[cfg(debug_assertions)]
    return armed::fails(name, place);
    #[cfg(not(debug_assertions))]
    {
        let _ = (name, place);
        false
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("BIFOLD_FAILPOINT").ok()?;
        match text.rsplit_once(':') {
            Some((name, visit)) => Some((name.to_string(), visit.parse().ok()?)),
            None => Some((text, 1)),
        }
    });
    static VISITS: AtomicU64 = AtomicU64::new(0);

    static FAILS: LazyLock<Option<(String, i64)>> = LazyLock::new(|| {
        let text = std::env::var("BIFOLD_FAILS").ok()?;
        let (name, place) = text.rsplit_once(':')?;
        Some((name.to_string(), place.parse().ok()?))
    });

    pub(super) fn fails(name: &str, place: i64) -> bool {
        FAILS.as_ref().is_some_and(|(failing, at)| *at == place && failing == name)
    }

    pub(super) fn visit(name: &str) {
        let Some((armed, at)) = &*ARMED else { return };
        if armed == name && VISITS.fetch_add(1, Ordering::SeqCst) + 1 == *at {
            eprintln!("failpoint {name} reached");
            std::process::abort();
        }
    }
}
