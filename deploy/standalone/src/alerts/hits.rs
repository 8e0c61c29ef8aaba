//! Which alerts have a fault behind them, which faults were found, and how long it took. Pure: told
//! each reading that has to do with a fault as it goes out, and each alert as it comes in.
//!
//! An alert hits a fault of its device and metric if its event time (or its window) meets the
//! fault's span: from the first faulty reading to the last of the aftermath, 30 readings behind it,
//! because a detector may notice the end. Each fault is found once; an alert that meets none is
//! false. Alerts about times before the run are of an older one, and are passed over.
//!
//! A summary stands for alerts that were held back. Each of them counts: as one with a fault only
//! if the summary names its series, and that had a fault meanwhile; nothing is found by it.

use crate::limits::{ALERT_IDS_KEPT_MAX, FAULTS_KEPT_MAX, LATENCIES_KEPT_MAX};
use crate::report::Latency;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;
use tributary_sim::fault::{FaultKind, Mark};
use tributary_sim::reading::{Reading, Series};

/// An alert, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The same for every copy.
    pub id: u128,
    /// What published.
    pub device: String,
    /// What it measures.
    pub metric: String,
    /// What it is about: event times, first and last, microseconds since 1970.
    pub span_us: (i64, i64),
}

/// A summary of alerts that were held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The same for every copy.
    pub id: u128,
    /// How many they are.
    pub alerts: u64,
    /// Device and metric of the first ones, with a space between.
    pub names: Vec<String>,
    /// When they came, microseconds since 1970.
    pub span_us: (i64, i64),
}

/// A fault of which something was published.
#[derive(Debug)]
struct Fault {
    kind: FaultKind,
    /// Event time of the last reading that has to do with it.
    last_us: i64,
    /// Readings that it is in.
    readings: u32,
    /// When each reading that has to do with it was written, by event time.
    written: Vec<(i64, Instant)>,
    found: bool,
}

impl Fault {
    /// Whether it is one that could be told from a sensor that is well.
    fn counts(&self) -> bool {
        self.found || self.readings >= self.kind.telling()
    }
}

/// Faults of one kind: how many there were, and how many were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Injected.
    pub injected: u64,
    /// Found.
    pub found: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// By kind, those that there were.
    pub kinds: Vec<(FaultKind, Tally)>,
    /// Alerts without a fault, told one by one or in a summary.
    pub alerts_false: u64,
    /// Alerts that were told in a summary alone.
    pub alerts_held_back: u64,
    /// From the socket write of the reading that an alert is about to the alert's arrival, over all
    /// alerts with a fault.
    pub latency: Latency,
    /// Why no alert came, if the agent offers none.
    pub refused: Option<String>,
}

impl Found {
    /// All kinds together.
    pub fn all(&self) -> Tally {
        let add = |sum: Tally, (_, one): &(FaultKind, Tally)| Tally {
            injected: sum.injected + one.injected,
            found: sum.found + one.found,
        };
        self.kinds.iter().fold(Tally::default(), add)
    }
}

/// Faults and alerts, as they come.
#[derive(Debug)]
pub struct Hits {
    started_us: i64,
    series: HashMap<(String, String), u32>,
    /// By series and event time of the first reading.
    faults: BTreeMap<(u32, i64), Fault>,
    /// In the order in which they began.
    order: VecDeque<(u32, i64)>,
    /// Those that are no longer among them.
    settled: BTreeMap<FaultKind, Tally>,
    seen: HashSet<u128>,
    seen_order: VecDeque<u128>,
    alerts: u64,
    alerts_false: u64,
    alerts_held_back: u64,
    /// In microseconds, newest last.
    latencies: VecDeque<u64>,
}

impl Hits {
    /// Nothing yet, of a run of these series that began at this time.
    pub fn new(series: &[Series], started_us: i64) -> Self {
        let name = |one: &Series| (one.device.clone(), one.metric.clone());
        Self {
            started_us,
            series: series.iter().map(name).zip(0..).collect(),
            faults: BTreeMap::new(),
            order: VecDeque::new(),
            settled: BTreeMap::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            alerts: 0,
            alerts_false: 0,
            alerts_held_back: 0,
            latencies: VecDeque::new(),
        }
    }

    /// Alerts that came, each once.
    pub fn alerts(&self) -> u64 {
        self.alerts
    }

    /// A reading that has to do with a fault goes out.
    pub fn writing(&mut self, reading: &Reading, mark: Mark, at: Instant) {
        let key = (reading.series, mark.first_us);
        if !self.faults.contains_key(&key) {
            self.order.push_back(key);
            self.settle();
        }
        let fault = self.faults.entry(key).or_insert_with(|| Fault {
            kind: mark.kind,
            last_us: reading.time_us,
            readings: 0,
            written: Vec::new(),
            found: false,
        });
        fault.last_us = fault.last_us.max(reading.time_us);
        fault.readings += u32::from(mark.is_faulty());
        fault.written.push((reading.time_us, at));
    }

    /// Makes room for one more fault.
    fn settle(&mut self) {
        while self.order.len() > FAULTS_KEPT_MAX {
            let oldest = self.order.pop_front();
            let Some(fault) = oldest.and_then(|key| self.faults.remove(&key)) else {
                return;
            };
            count(&mut self.settled, &fault);
        }
    }

    /// An alert has come.
    pub fn alert(&mut self, alert: &Alert, at: Instant) {
        let (first_us, last_us) = alert.span_us;
        if last_us < self.started_us || !self.is_new(alert.id) {
            return;
        }
        self.alerts += 1;
        let name = (alert.device.clone(), alert.metric.clone());
        let series = self.series.get(&name).copied();
        let fault = series.and_then(|series| met(&mut self.faults, series, alert.span_us));
        let Some(fault) = fault else {
            self.alerts_false += 1;
            return;
        };
        fault.found = true;
        let about = fault
            .written
            .iter()
            .find(|(time_us, _)| *time_us >= first_us);
        if let Some((_, written)) = about {
            let micros = at.saturating_duration_since(*written).as_micros();
            self.latencies
                .push_back(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        if self.latencies.len() > LATENCIES_KEPT_MAX {
            self.latencies.pop_front();
        }
    }

    /// A summary has come.
    pub fn summary(&mut self, summary: &Summary) {
        if summary.span_us.1 < self.started_us || !self.is_new(summary.id) {
            return;
        }
        self.alerts += summary.alerts;
        self.alerts_held_back += summary.alerts;
        let with_fault = summary.names.iter().filter(|name| {
            // Neither of the fleet's devices nor metrics have spaces.
            let name = name.split_once(' ');
            let name = name.map(|(device, metric)| (device.to_owned(), metric.to_owned()));
            let series = name.and_then(|name| self.series.get(&name).copied());
            series.is_some_and(|series| met(&mut self.faults, series, summary.span_us).is_some())
        });
        let with_fault = with_fault.count() as u64;
        self.alerts_false += summary.alerts.saturating_sub(with_fault);
    }

    /// Whether no copy of this alert has come before.
    fn is_new(&mut self, id: u128) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        self.seen_order.push_back(id);
        if self.seen_order.len() > ALERT_IDS_KEPT_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// What came of it so far.
    pub fn found(&self) -> Found {
        let mut kinds = self.settled.clone();
        self.faults
            .values()
            .for_each(|fault| count(&mut kinds, fault));
        Found {
            kinds: kinds.into_iter().collect(),
            alerts_false: self.alerts_false,
            alerts_held_back: self.alerts_held_back,
            latency: latency(self.latencies.iter().copied().collect()),
            refused: None,
        }
    }
}

/// The newest fault of a series that meets a span of event times.
fn met(
    faults: &mut BTreeMap<(u32, i64), Fault>,
    series: u32,
    (first_us, last_us): (i64, i64),
) -> Option<&mut Fault> {
    let mut begun = faults.range_mut((series, i64::MIN)..=(series, last_us));
    let (_, fault) = begun.next_back()?;
    (fault.last_us >= first_us).then_some(fault)
}

fn count(kinds: &mut BTreeMap<FaultKind, Tally>, fault: &Fault) {
    if fault.counts() {
        let tally = kinds.entry(fault.kind).or_default();
        tally.injected += 1;
        tally.found += u64::from(fault.found);
    }
}

/// Percentiles by nearest rank: values that there were.
fn latency(mut micros: Vec<u64>) -> Latency {
    micros.sort_unstable();
    let at = |share: f64| {
        let rank = (share * micros.len() as f64).ceil() as usize;
        let value = micros.get(rank.saturating_sub(1)).copied();
        value.unwrap_or(0) as f64 / 1_000.0
    };
    Latency {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: at(1.0),
    }
}

#[cfg(test)]
mod tests;
