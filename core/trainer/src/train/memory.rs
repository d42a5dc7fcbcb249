//! How much memory the process takes, as the operating system counts it.

/// Bytes resident now; `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes resident so far.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
