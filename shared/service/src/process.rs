//! The process's own memory and CPU time, under the names that Prometheus' client libraries use. On Linux alone: elsewhere
//! the series are missing.

/// Ticks of `/proc/self/stat` a second: Linux has had 100 for user space on every architecture for twenty years.
const TICKS: f64 = 100.0;

/// What they are now, in Prometheus' text format: counters of the library are whole numbers, and seconds are not.
pub(crate) fn text() -> String {
    let mut text = String::new();
    if let Some(bytes) = resident_bytes() {
        text +=
            "# HELP process_resident_memory_bytes memory of the process\n# TYPE process_resident_memory_bytes gauge\n";
        text += &format!("process_resident_memory_bytes {bytes}\n");
    }
    if let Some(seconds) = cpu_seconds() {
        text += "# HELP process_cpu_seconds_total CPU time of the process\n# TYPE process_cpu_seconds_total counter\n";
        text += &format!("process_cpu_seconds_total {seconds}\n");
    }
    text
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
