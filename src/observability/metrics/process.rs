//! The standard metrics of a process, from `/proc`
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). On systems without it there are none.

use std::fs;
use std::io::{BufRead, BufReader};

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

/// Adds what can be read to a registry without a prefix. Blocks for a few reads of files that have no disk.
pub(crate) fn register_process(registry: &mut Registry) {
    if let Some((cpu_seconds, started)) = times() {
        registry.register(
            "process_cpu_seconds",
            "Processor time in user and system mode, in seconds",
            ConstCounter::new(cpu_seconds),
        );
        if let Some(booted) = boot_time() {
            registry.register(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970",
                ConstGauge::new(booted + started),
            );
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, help, field) in [
        (
            "process_resident_memory_bytes",
            "Memory of the process in RAM",
            "VmRSS:",
        ),
        (
            "process_virtual_memory_bytes",
            "Memory of the process, whether in RAM or not",
            "VmSize:",
        ),
        (
            "process_heap_bytes",
            "Memory of the process that only it can write, whether in RAM or not",
            "VmData:",
        ),
        ("process_threads", "Threads of the process", "Threads:"),
    ] {
        if let Some(value) = value_of(&status, field) {
            registry.register(name, help, ConstGauge::new(value));
        }
    }
    registry.register(
        "process_virtual_memory_max_bytes",
        "The most memory that the system allows, 18446744073709551615 without a limit",
        // As Go's client shows it.
        ConstGauge::new(getrlimit(Resource::As).current.unwrap_or(u64::MAX)),
    );
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        registry.register(
            "process_open_fds",
            "Open file descriptors",
            // One of them is the directory itself.
            ConstGauge::new((open.count() as u64).saturating_sub(1)),
        );
        if let Some(max) = getrlimit(Resource::Nofile).current {
            registry.register(
                "process_max_fds",
                "The most file descriptors that the system allows",
                ConstGauge::new(max),
            );
        }
    }
}

/// Processor time, and the start after the boot, both in seconds (proc(5), `/proc/pid/stat`).
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in brackets, and may contain blanks and brackets.
    let (_name, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    // The rest begins with the third field.
    let cpu = ticks(14 - 3)? + ticks(15 - 3)?;
    Some((cpu / per_second, ticks(22 - 3)? / per_second))
}

/// When the system booted, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = BufReader::new(fs::File::open("/proc/stat").ok()?);
    let mut lines = stat.lines().map_while(Result::ok);
    lines.find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// A number in `/proc/self/status`: `VmRSS:  1234 kB` in bytes, `Threads:  5` as it is.
fn value_of(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    match value.trim().strip_suffix("kB") {
        Some(kibibytes) => kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024),
        None => value.trim().parse().ok(),
    }
}
