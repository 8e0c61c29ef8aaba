//! What one measure took: CPU, time, bytes, syncs, memory. Each measure is a process of its own,
//! so that neither memory nor threads of another are in it.

use crate::counting::{CountingDisk, Counts};
use anyhow::{Context, Result};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// What one run of one measure took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Readings that went through.
    pub readings: u64,
    /// Bytes of their payloads as published.
    pub payload_bytes: u64,
    /// Bytes of their payloads and topics.
    pub message_bytes: u64,
    /// CPU of all threads, kernel included.
    pub cpu_ns: u64,
    /// Time from begin to end.
    pub elapsed_ns: u64,
    /// What was written.
    pub counts: Counts,
    /// Greatest resident memory of the process, its input included.
    pub peak_rss_bytes: u64,
}

/// Clocks that can be held while input is made.
#[derive(Default)]
pub struct Meter {
    cpu_ns: u64,
    elapsed_ns: u64,
    readings: u64,
    payload_bytes: u64,
    message_bytes: u64,
}

fn nanos(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn now() -> (u64, u64) {
    (
        nanos(clock_gettime(ClockId::ProcessCPUTime)),
        nanos(clock_gettime(ClockId::Monotonic)),
    )
}

impl Meter {
    /// Lets the clocks run while `work` does.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (cpu, elapsed) = now();
        let done = work();
        let (cpu_end, elapsed_end) = now();
        self.cpu_ns += cpu_end - cpu;
        self.elapsed_ns += elapsed_end - elapsed;
        done
    }

    /// Counts a message with one reading.
    pub fn count(&mut self, topic: &str, payload: &str) {
        self.readings += 1;
        self.payload_bytes += payload.len() as u64;
        self.message_bytes += (topic.len() + payload.len()) as u64;
    }

    /// Counts what another one counted; not its times.
    pub fn count_as(&mut self, other: &Self) {
        self.readings += other.readings;
        self.payload_bytes += other.payload_bytes;
        self.message_bytes += other.message_bytes;
    }

    /// Makes the elapsed time that from `begin` until now, pauses included.
    pub fn elapsed_since(&mut self, begin: std::time::Instant) {
        self.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    /// What it all took.
    pub fn finish(self, disk: &CountingDisk) -> Result<Sample> {
        Ok(Sample {
            readings: self.readings,
            payload_bytes: self.payload_bytes,
            message_bytes: self.message_bytes,
            cpu_ns: self.cpu_ns,
            elapsed_ns: self.elapsed_ns,
            counts: disk.counts(),
            peak_rss_bytes: peak_rss_bytes()?,
        })
    }
}

fn peak_rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .and_then(|kib| kib.trim().parse().ok())
        .context("no VmHWM in /proc/self/status")?;
    Ok(kib * 1024)
}
