//! Metrics of this process, with the names that all Prometheus clients use. Only Linux has them.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// The ticks of a second in `/proc`. Linux has the same number on all architectures.
const TICKS: f64 = 100.0;

/// A registry that reads the process at each scrape. Its metrics have no prefix.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(times) = ProcessTimes::read(&stat) {
            let (name, help) = ("process_cpu", "CPU time of the process, in user and system mode.");
            counter(&mut encoder, name, help, &Unit::Seconds, times.cpu)?;
            if let Some(boot) = boot_time(&system) {
                let help = "When the process started, in seconds since 1970.";
                gauge(&mut encoder, "process_start_time", help, Some(&Unit::Seconds), boot + times.started)?;
            }
        }
        if let Some(bytes) = resident(&status) {
            gauge(&mut encoder, "process_resident_memory", "Resident memory.", Some(&Unit::Bytes), bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // Without the descriptor that reads the directory.
            let open = open.count().saturating_sub(1) as f64;
            gauge(&mut encoder, "process_open_fds", "Open file descriptors.", None, open)?;
        }
        if let Ok((most, _)) = rlimit::Resource::NOFILE.get() {
            gauge(&mut encoder, "process_max_fds", "The limit of open file descriptors.", None, most as f64)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: &Unit,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, Some(unit), counter.metric_type())?)
}

/// Times in seconds.
#[derive(Debug, PartialEq)]
struct ProcessTimes {
    cpu: f64,
    /// Since the system started.
    started: f64,
}

impl ProcessTimes {
    /// Reads `/proc/self/stat` (proc_pid_stat(5)). The name of the program, in brackets, may contain anything.
    fn read(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        // The first field here is the third one of the manual page.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu: (ticks(14)? + ticks(15)?) / TICKS, started: ticks(22)? / TICKS })
    }
}

/// Reads from `/proc/stat` when the system started, in seconds since 1970.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Reads the resident memory from `/proc/self/status`, in bytes.
fn resident(status: &str) -> Option<f64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kibibytes.trim().parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200 18446744073709551615";
        assert_eq!(ProcessTimes::read(stat), Some(ProcessTimes { cpu: 3.0, started: 123.45 }));
        assert_eq!(ProcessTimes::read("7 (tidings) S 1"), None);
        assert_eq!(boot_time("cpu 1 2 3\nbtime 1700000000\nprocesses 9\n"), Some(1_700_000_000.0));
        assert_eq!(resident("Name:\ttidings\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!((boot_time(""), resident("")), (None, None));
    }
}
