//! What a process costs, in the kernel's words.

use std::{fs, time::Duration};

/// Ticks a second in `/proc/PID/stat`: fixed on Linux.
const TICKS: u64 = 100;

/// Time on a processor so far, in all threads, user and system.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything; what follows its closing bracket is fields 3, 4, …
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis((field(14) + field(15)) * 1000 / TICKS)
}

/// Resident memory now, in MiB.
pub fn rss(pid: u32) -> f64 {
    status(pid, "VmRSS:")
}

/// The most that was resident so far, in MiB.
pub fn peak(pid: u32) -> f64 {
    status(pid, "VmHWM:")
}

/// Open file descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn status(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// The machine, as it names itself.
pub fn machine() -> String {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = line("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("{cores} cores of {}, {} GiB, Linux {kernel}", line("/proc/cpuinfo", "model name"), kib >> 20)
}
