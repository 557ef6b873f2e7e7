//! The process's own memory and CPU time, under the names that Prometheus' client libraries use. On Linux alone: elsewhere
//! the series are missing.

/// Ticks of `/proc/self/stat` a second: Linux has had 100 for user space on every architecture for twenty years.
const TICKS: f64 = 100.0;
/// Sets the gauges to what they are now.
pub(crate) fn measure() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        metrics::gauge!("process_cpu_seconds_total").set(seconds);
    }
}

/// `VmRSS`, which the kernel says in kB.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(rest.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// User and system time. The second field, the name, may have blanks and parentheses.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |n: usize| fields.split_whitespace().nth(n)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}
