//! What is told later: what a record has to say beyond what one record may, and alerts of rules and
//! states for which there was no room. These stand until they are over: so they are told once there
//! is room, the gravest first, unless they were over by then. In order and in time a function of
//! the log.

use super::kept::{read_text, write_text};
use super::standing::{Standing, severity_of};
use super::{Said, Spoken, What};
use crate::alert::{AlertId, AlertState, Severity};
use crate::limits::{LATER_MAX, OWED_MAX};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use std::collections::{BTreeMap, VecDeque};
use tributary_protocol::reading::{Flags, Meta};

/// Device, metric, detector.
type Key = (Box<str>, Box<str>, Box<str>);

/// An alert that stands and was not told.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Owed {
    pub severity: Severity,
    /// Which came first.
    pub serial: u64,
    pub standing: Standing,
    pub meta: Meta,
    /// How far its device's time is ahead of the one that it was judged by.
    pub skew: i64,
}

/// What waits; see the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Later {
    owed: BTreeMap<Key, Owed>,
    serial: u64,
    said: VecDeque<(String, Spoken)>,
    aggregates: VecDeque<(String, Spoken)>,
    /// What there was no room for, since the start.
    pub lost: u64,
}

impl Later {
    /// Keeps an alert that stands, until there is room to tell it.
    pub fn owe(
        &mut self,
        (device, metric): (&str, &str),
        (standing, severity): (Standing, Severity),
        (meta, skew): (Meta, i64),
    ) {
        let key = (device.into(), metric.into(), standing.detector.clone());
        if self.owed.len() >= OWED_MAX && !self.owed.contains_key(&key) {
            self.lost += 1;
            return;
        }
        self.serial += 1;
        let owed = Owed {
            severity,
            serial: self.serial,
            standing,
            meta,
            skew,
        };
        self.owed.insert(key, owed);
    }

    /// An alert is over; whether it was never told.
    pub fn is_over(&mut self, device: &str, metric: &str, detector: &str) -> bool {
        let key = (device.into(), metric.into(), detector.into());
        self.owed.remove(&key).is_some()
    }

    /// The gravest alert that is owed, and of those the one that was raised first.
    pub fn gravest(&self) -> Option<Severity> {
        self.owed.values().map(|owed| owed.severity).max()
    }

    /// Takes it out.
    pub fn take_gravest(&mut self) -> Option<(String, String, Owed)> {
        let rank = |owed: &Owed| (owed.severity, u64::MAX - owed.serial);
        let most = self.owed.iter().max_by_key(|(_, owed)| rank(owed));
        let key = most?.0.clone();
        let owed = self.owed.remove(&key)?;
        Some((key.0.into(), key.1.into(), owed))
    }

    /// Keeps what a record has no room for.
    pub fn say(&mut self, topic: String, spoken: Spoken) {
        match self.said.len() < LATER_MAX {
            true => self.said.push_back((topic, spoken)),
            false => self.lost += 1,
        }
    }

    /// Whether alerts wait that only need another record.
    pub fn is_waiting(&self) -> bool {
        !self.said.is_empty()
    }

    /// Whether aggregates do.
    pub fn has_aggregates(&self) -> bool {
        !self.aggregates.is_empty()
    }

    /// Keeps an aggregate that a record has no room for.
    pub fn say_aggregate(&mut self, topic: String, spoken: Spoken) {
        match self.aggregates.len() < LATER_MAX {
            true => self.aggregates.push_back((topic, spoken)),
            false => self.lost += 1,
        }
    }

    /// The aggregate that waits longest, to be told with this record.
    pub fn next_aggregate(&mut self, origin: Origin) -> Option<Said> {
        let (topic, spoken) = self.aggregates.pop_front()?;
        Some(Said {
            origin,
            topic,
            what: What::Aggregate(spoken),
        })
    }

    /// What waits longest, with its topic.
    pub fn next(&mut self) -> Option<(String, Spoken)> {
        self.said.pop_front()
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.serial);
        out.put_u32_le(self.owed.len() as u32);
        for ((device, metric, _), owed) in &self.owed {
            write_text(device, out);
            write_text(metric, out);
            out.put_u8(owed.severity as u8);
            out.put_u64_le(owed.serial);
            owed.standing.write(out);
            write_meta(&owed.meta, out);
            out.put_i64_le(owed.skew);
        }
        write_said(&self.said, out);
        write_said(&self.aggregates, out);
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut later = Self {
            serial: input.try_get_u64_le().ok()?,
            ..Self::default()
        };
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let severity = usize::from(input.try_get_u8().ok()?);
            let owed = Owed {
                severity: Severity::NAMES.get(severity)?.1,
                serial: input.try_get_u64_le().ok()?,
                standing: Standing::read(input)?,
                meta: read_meta(input)?,
                skew: input.try_get_i64_le().ok()?,
            };
            let key = (device.into(), metric.into(), owed.standing.detector.clone());
            later.owed.insert(key, owed);
        }
        later.said = read_said(input)?;
        later.aggregates = read_said(input)?;
        (later.owed.len() <= OWED_MAX).then_some(later)
    }
}

fn write_said(said: &VecDeque<(String, Spoken)>, out: &mut Vec<u8>) {
    out.put_u32_le(said.len() as u32);
    for (topic, spoken) in said {
        for text in [topic, &spoken.device, &spoken.metric, &spoken.json] {
            write_text(text, out);
        }
        write_meta(&spoken.meta, out);
        out.put_slice(&[spoken.state as u8, u8::from(spoken.is_present)]);
    }
}

fn read_said(input: &mut &[u8]) -> Option<VecDeque<(String, Spoken)>> {
    let mut said = VecDeque::new();
    for _ in 0..input.try_get_u32_le().ok()? {
        let mut text = || read_text(input).map(str::to_owned);
        let (topic, device, metric, json) = (text()?, text()?, text()?, text()?);
        let spoken = Spoken {
            device,
            metric,
            meta: read_meta(input)?,
            state: AlertState::from_code(input.try_get_u8().ok()?)?,
            is_present: input.try_get_u8().ok()? != 0,
            is_passing: false,
            json,
        };
        if said.len() >= LATER_MAX {
            return None;
        }
        said.push_back((topic, spoken));
    }
    Some(said)
}

impl Standing {
    /// Appends its bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_text(&self.detector, out);
        out.put_slice(&self.id.0);
        out.put_slice(&self.incident.0);
        out.put_f64_le(self.score);
        write_text(&self.json, out);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        let detector = read_text(input)?.into();
        let (id, rest) = input.split_first_chunk()?;
        let (incident, rest) = rest.split_first_chunk()?;
        *input = rest;
        let score = input.try_get_f64_le().ok()?;
        let json = read_text(input)?;
        Some(Self {
            detector,
            id: AlertId(*id),
            incident: AlertId(*incident),
            severity: severity_of(json),
            score,
            json: json.into(),
        })
    }
}

fn write_meta(meta: &Meta, out: &mut Vec<u8>) {
    out.put_i64_le(meta.event_time);
    out.put_i64_le(meta.received_time);
    out.put_i32_le(meta.quality);
    out.put_u8(u8::from(meta.device_seq.is_some()));
    out.put_i64_le(meta.device_seq.unwrap_or(0));
    out.put_u8(meta.flags.0);
}

fn read_meta(input: &mut &[u8]) -> Option<Meta> {
    let event_time = input.try_get_i64_le().ok()?;
    let received_time = input.try_get_i64_le().ok()?;
    let quality = input.try_get_i32_le().ok()?;
    let has_seq = input.try_get_u8().ok()? != 0;
    let seq = input.try_get_i64_le().ok()?;
    Some(Meta {
        event_time,
        received_time,
        quality,
        device_seq: has_seq.then_some(seq),
        flags: Flags(input.try_get_u8().ok()?),
    })
}
