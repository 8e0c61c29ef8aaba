//! `[[detect.group]]`: metrics of a device that are channels of one machine, and the state that
//! they are in together. Pure: told readings in order.
//!
//! Channels report when they like. A row is taken when each of them has said something since the
//! last one, or when one says something for the second time: then the others have no value in it,
//! which leaves them as they are.

use super::pattern::Pattern;
use super::sample::{Place, Sample};
use super::state::{Change, StateGroup};
use crate::alert::Severity;
use crate::decode::quoted;
use crate::limits::{GROUP_CHANNELS, GROUP_MACHINES_MAX, GROUP_SPECS_MAX};
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use tributary_protocol::ids::is_name;
use tributary_settings::Section;

/// One section.
#[derive(Clone, PartialEq, Debug)]
struct Spec {
    name: Arc<str>,
    device: Pattern,
    metrics: Vec<Box<str>>,
    severity: Severity,
    text: String,
}

/// What is configured of groups.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GroupSpecs {
    specs: Vec<Spec>,
    text: String,
}

impl GroupSpecs {
    /// Reads `[[detect.group]]` in the section `detect`; what is wrong is reported there.
    pub fn read(detect: &mut Section) -> Arc<Self> {
        let mut sections = detect.sections("group");
        if let Some(section) = sections.get(GROUP_SPECS_MAX) {
            section.wrong_section(format!("is one too many: at most {GROUP_SPECS_MAX}"));
        }
        let mut specs: Vec<Spec> = Vec::new();
        for section in sections.iter_mut().take(GROUP_SPECS_MAX) {
            let Some(spec) = spec(section) else {
                continue;
            };
            match specs.iter().any(|known| known.name == spec.name) {
                true => section.wrong(
                    "name",
                    format!("is \"{}\", and so is that of a group above", spec.name),
                ),
                false => specs.push(spec),
            }
        }
        let text = specs.iter().map(|spec| spec.text.as_str()).collect();
        Arc::new(Self { specs, text })
    }

    /// What is configured, with every default written out.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}

fn spec(section: &mut Section) -> Option<Spec> {
    let usable = |name: String| match is_name(&name) {
        true => Ok(name),
        false => Err("is no name: expected 1 to 256 bytes without control characters".to_owned()),
    };
    if !section.has("name") {
        section.wrong("name", "is missing: alerts are called by it");
    }
    let name = section.read("name", usable);
    let device = Pattern::read(section, "device");
    if !section.has("metrics") {
        section.wrong(
            "metrics",
            "is missing: which metrics are the machine's channels?",
        );
    }
    let (least, most) = GROUP_CHANNELS;
    let metrics = section.read("metrics", |names: Vec<String>| {
        if !(least..=most).contains(&names.len()) {
            let count = names.len();
            return Err(format!("has {count} metrics; expected {least} to {most}"));
        }
        let mut metrics: Vec<Box<str>> = Vec::new();
        for name in names {
            let name = usable(name).map_err(|wrong| format!("holds one that {wrong}"))?;
            if metrics.iter().any(|known| **known == *name) {
                return Err(format!("has `{name}` twice"));
            }
            metrics.push(name.into());
        }
        Ok(metrics)
    });
    let star = metrics.iter().flatten().find(|name| name.contains('*'));
    if let Some(name) = star {
        section.warn(
            "metrics",
            format!(
                "holds `{name}`, in which `*` stands for itself: each channel has its name here"
            ),
        );
    }
    let severity = section.read("severity", |word: String| {
        let found = Severity::NAMES.iter().find(|(known, _)| *known == word);
        found
            .map(|(_, severity)| *severity)
            .ok_or_else(|| format!("is \"{word}\"; expected info, warning, critical"))
    });
    let mut spec = Spec {
        name: name?.into(),
        device: device.unwrap_or_else(Pattern::any),
        metrics: metrics?,
        severity: severity.unwrap_or_default(),
        text: String::new(),
    };
    let metrics: Vec<String> = spec.metrics.iter().map(|metric| quoted(metric)).collect();
    write!(
        spec.text,
        "\n[[detect.group]]\nname = {}\ndevice = {}\nmetrics = [{}]\nseverity = \"{}\"\n",
        quoted(&spec.name),
        quoted(spec.device.text()),
        metrics.join(", "),
        spec.severity.name(),
    )
    .expect("a String takes any text");
    Some(spec)
}

/// A machine's state begins or is over.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupEvent {
    /// The group's name.
    pub group: Arc<str>,
    /// The device.
    pub device: Box<str>,
    /// Whether the state begins; otherwise it is over.
    pub began: bool,
    /// How much it matters.
    pub severity: Severity,
    /// The score, 1 being where a state begins.
    pub score: f64,
    /// The channel that is farthest from what was usual, and by how many deviations.
    pub farthest: Option<(Box<str>, f64)>,
    /// When it was measured: µs since 1970, UTC.
    pub event_time: i64,
}

/// One machine: a group of one device.
#[derive(Clone, PartialEq, Debug)]
struct Machine {
    state: StateGroup,
    /// What channels said since the last row; NaN of one that said nothing.
    row: Box<[f64]>,
}

#[derive(Clone, Debug)]
enum Bound {
    Unknown,
    Free,
    /// Groups, and the channel in each.
    Channels(Box<[(u16, u16)]>),
}

/// The machines.
#[derive(Debug)]
pub struct GroupEngine {
    specs: Arc<GroupSpecs>,
    machines: BTreeMap<(u16, Box<str>), Machine>,
    slots: Vec<Bound>,
    /// Machines that there was no room for.
    refused: u64,
}

impl GroupEngine {
    /// Nothing known of any machine.
    pub fn new(specs: Arc<GroupSpecs>) -> Self {
        Self {
            specs,
            machines: BTreeMap::new(),
            slots: Vec::new(),
            refused: 0,
        }
    }

    /// Readings of machines that there was no room for.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Each group by its name, and how many machines it is for by now.
    pub fn tallied(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut counts = vec![0; self.specs.len()];
        for (group, _) in self.machines.keys() {
            if let Some(count) = counts.get_mut(usize::from(*group)) {
                *count += 1;
            }
        }
        let names = self.specs.specs.iter().map(|spec| &*spec.name);
        names.zip(counts)
    }

    /// Takes a reading. Of one that is late, or no number, nothing is made.
    pub fn step(&mut self, place: &Place<'_>, sample: &Sample, out: &mut Vec<GroupEvent>) {
        if self.specs.is_empty() || sample.late || !sample.value.is_finite() {
            return;
        }
        let slot = place.series.0 as usize;
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Bound::Unknown);
        }
        if let Some(bound @ Bound::Unknown) = self.slots.get_mut(slot) {
            *bound = bind(&self.specs, place);
        }
        let Some(Bound::Channels(channels)) = self.slots.get(slot) else {
            return;
        };
        for (group, channel) in channels {
            let Some(spec) = self.specs.specs.get(usize::from(*group)) else {
                continue;
            };
            let key = (*group, Box::from(place.device_name));
            if !self.machines.contains_key(&key) {
                if self.machines.len() >= GROUP_MACHINES_MAX {
                    self.refused += 1;
                    continue;
                }
                self.machines
                    .insert(key.clone(), Machine::new(spec.metrics.len()));
            }
            let Some(machine) = self.machines.get_mut(&key) else {
                continue;
            };
            let told = machine.take(usize::from(*channel), sample.value);
            out.extend(told.map(|change| machine.event(spec, &key.1, change, sample.event_time)));
        }
    }

    /// Forgets where a series stands. Its machine is known by name, and stays.
    pub fn forget(&mut self, place: &Place<'_>) {
        if let Some(bound) = self.slots.get_mut(place.series.0 as usize) {
            *bound = Bound::Unknown;
        }
    }

    /// Nothing of a device is at hand any more: its machines leave their places to others, and a
    /// state that stands is over.
    pub fn forget_device(&mut self, device: &str, now: i64, out: &mut Vec<GroupEvent>) {
        for (group, spec) in (0..).zip(&self.specs.specs) {
            let key = (group, Box::from(device));
            let machine = self.machines.remove(&key);
            if let Some(machine) = machine.filter(|machine| machine.state.is_in_state()) {
                out.push(machine.event(spec, device, false, now));
            }
        }
    }

    /// Goes on with other groups. Machines of groups that mean the same go on as they were; a state
    /// of another one is over.
    pub fn replace(&mut self, specs: Arc<GroupSpecs>, now: i64, out: &mut Vec<GroupEvent>) {
        let old = std::mem::replace(&mut self.specs, specs);
        self.slots.clear();
        for ((group, device), machine) in std::mem::take(&mut self.machines) {
            let Some(spec) = old.specs.get(usize::from(group)) else {
                continue;
            };
            let same = self
                .specs
                .specs
                .iter()
                .position(|new| new.text == spec.text);
            if let Some(place) = same {
                self.machines.insert((place as u16, device), machine);
            } else if machine.state.is_in_state() {
                out.push(machine.event(spec, &device, false, now));
            }
        }
    }

    /// Appends what is known, as in a checkpoint.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.machines.len() as u32);
        for ((group, device), machine) in &self.machines {
            out.put_u16_le(*group);
            out.put_u16_le(device.len() as u16);
            out.put_slice(device.as_bytes());
            machine.row.iter().for_each(|value| out.put_f64_le(*value));
            machine.state.write(out);
        }
    }

    /// Takes it off the front of `input`, for the groups that it was written with; `None` when the
    /// bytes are none.
    pub fn read_checkpoint(input: &mut &[u8], specs: Arc<GroupSpecs>) -> Option<Self> {
        let mut engine = Self::new(specs);
        for _ in 0..input.try_get_u32_le().ok()? {
            let group = input.try_get_u16_le().ok()?;
            let length = usize::from(input.try_get_u16_le().ok()?);
            let (device, rest) = input.split_at_checked(length)?;
            *input = rest;
            let device = std::str::from_utf8(device).ok()?;
            let channels = engine.specs.specs.get(usize::from(group))?.metrics.len();
            let mut row = Vec::with_capacity(channels);
            for _ in 0..channels {
                row.push(input.try_get_f64_le().ok()?);
            }
            let machine = Machine {
                row: row.into(),
                state: StateGroup::read(channels, input)?,
            };
            if engine.machines.len() >= GROUP_MACHINES_MAX {
                return None;
            }
            engine.machines.insert((group, device.into()), machine);
        }
        Some(engine)
    }
}

impl Machine {
    fn new(channels: usize) -> Self {
        Self {
            state: StateGroup::new(channels),
            row: vec![f64::NAN; channels].into(),
        }
    }

    /// Whether a state begins (`true`) or is over with this value, if either.
    fn take(&mut self, channel: usize, value: f64) -> Option<bool> {
        let is_second = self.row.get(channel).is_some_and(|known| !known.is_nan());
        let first = if is_second { self.step() } else { None };
        if let Some(place) = self.row.get_mut(channel) {
            *place = value;
        }
        let is_full = self.row.iter().all(|value| !value.is_nan());
        let second = if is_full { self.step() } else { None };
        // Two rows with one value: the later one says how things stand.
        second.or(first)
    }

    fn step(&mut self) -> Option<bool> {
        let row = self.state.step(&self.row);
        self.row.fill(f64::NAN);
        match row.change {
            Change::None => None,
            Change::Began => Some(true),
            Change::Ended => Some(false),
        }
    }

    fn event(&self, spec: &Spec, device: &str, began: bool, event_time: i64) -> GroupEvent {
        let farthest = self.state.farthest().and_then(|(channel, deviations)| {
            let metric = spec.metrics.get(channel)?;
            Some((metric.clone(), f64::from(deviations)))
        });
        GroupEvent {
            group: Arc::clone(&spec.name),
            device: device.into(),
            began,
            severity: spec.severity,
            score: f64::from(self.state.severity()),
            farthest,
            event_time,
        }
    }
}

fn bind(specs: &GroupSpecs, place: &Place<'_>) -> Bound {
    let mut channels = Vec::new();
    for (group, spec) in (0..).zip(&specs.specs) {
        let channel = spec
            .metrics
            .iter()
            .position(|metric| **metric == *place.metric);
        if let Some(channel) = channel.filter(|_| spec.device.fits(place.device_name)) {
            channels.push((group, channel as u16));
        }
    }
    match channels.is_empty() {
        true => Bound::Free,
        false => Bound::Channels(channels.into()),
    }
}

const _: () = assert!(GROUP_SPECS_MAX <= u16::MAX as usize);
const _: () = assert!(GROUP_CHANNELS.1 <= u16::MAX as usize);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::detect::sample::{DeviceSlot, SeriesSlot};
    use tributary_settings::Document;

    const TEXT: &str = "[[detect.group]]\nname = \"spindle\"\ndevice = \"mill-*\"\n\
                        metrics = [\"a\", \"b\", \"c\"]\nseverity = \"critical\"\n";

    fn specs(text: &str) -> Result<Arc<GroupSpecs>, Vec<String>> {
        let mut document = Document::parse(text, "", []);
        let specs = GroupSpecs::read(&mut document.root().section("detect"));
        match document.finish() {
            wrong if wrong.is_empty() => Ok(specs),
            wrong => Err(wrong.iter().map(ToString::to_string).collect()),
        }
    }

    struct Mill {
        engine: GroupEngine,
        out: Vec<GroupEvent>,
        seed: u64,
    }

    impl Mill {
        fn noise(&mut self) -> f64 {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            (self.seed % 2_001) as f64 / 1_000.0 - 1.0
        }

        fn rows(&mut self, from: i64, rows: i64, off: f64) {
            for i in from..from + rows {
                for (slot, metric) in (0..).zip(["a", "b", "c"]) {
                    let value = 50.0 + self.noise() + off;
                    self.say(slot, metric, i, value);
                }
            }
        }

        fn say(&mut self, slot: u32, metric: &str, i: i64, value: f64) {
            let place = Place {
                series: SeriesSlot(slot),
                device: DeviceSlot(0),
                device_name: "mill-7",
                metric,
                unit: "",
            };
            let sample = Sample {
                event_time: i * 1_000_000,
                received_time: i * 1_000_000,
                value,
                late: false,
                trusted: true,
            };
            self.engine.step(&place, &sample, &mut self.out);
        }

        fn again(&mut self) {
            let mut bytes = Vec::new();
            self.engine.write_checkpoint(&mut bytes);
            for length in 0..bytes.len() {
                let specs = Arc::clone(&self.engine.specs);
                assert!(GroupEngine::read_checkpoint(&mut &bytes[..length], specs).is_none());
            }
            let specs = Arc::clone(&self.engine.specs);
            self.engine = GroupEngine::read_checkpoint(&mut bytes.as_slice(), specs).unwrap();
        }
    }

    fn mill() -> Mill {
        Mill {
            engine: GroupEngine::new(specs(TEXT).unwrap()),
            out: Vec::new(),
            seed: 7,
        }
    }

    #[test]
    fn a_state_begins_and_ends_also_with_a_checkpoint_in_between() {
        let mut mill = mill();
        mill.rows(0, 600, 0.0);
        assert_eq!(mill.out, []);
        mill.again();
        mill.rows(600, 200, 3.0);
        let began = mill.out.pop().unwrap();
        assert!(began.began && began.score >= 1.0 && mill.out.is_empty());
        assert_eq!((&*began.device, &*began.group), ("mill-7", "spindle"));
        assert!(began.farthest.is_some());
        mill.again();
        mill.rows(800, 1_000, 0.0);
        assert!(!mill.out.pop().unwrap().began && mill.out.is_empty());
    }

    #[test]
    fn a_channel_that_speaks_twice_ends_the_row_and_the_others_stay_as_they_are() {
        let mut mill = mill();
        mill.rows(0, 3, 0.0);
        let learns = |mill: &Mill| mill.engine.machines.values().next().unwrap().state.learns();
        let before = learns(&mill);
        mill.say(0, "a", 3, 50.0);
        assert_eq!(learns(&mill), before);
        mill.say(0, "a", 4, 50.0);
        assert_eq!(learns(&mill), before - 1);
        mill.say(9, "d", 4, 50.0);
        mill.say(1, "b", 4, f64::NAN);
        assert_eq!(learns(&mill), before - 1);
    }

    #[test]
    fn groups_that_mean_the_same_go_on_and_the_state_of_another_is_over() {
        let mut mill = mill();
        mill.rows(0, 600, 0.0);
        mill.rows(600, 200, 3.0);
        assert!(mill.out.pop().unwrap().began);
        let same = format!("[[detect.group]]\nname = \"x\"\nmetrics = [\"p\", \"q\"]\n{TEXT}");
        mill.engine.replace(specs(&same).unwrap(), 9, &mut mill.out);
        assert_eq!((mill.out.len(), mill.engine.machines.len()), (0, 1));
        let other = TEXT.replace("critical", "info");
        mill.engine
            .replace(specs(&other).unwrap(), 9, &mut mill.out);
        assert!(!mill.out[0].began);
        assert_eq!(mill.engine.machines.len(), 0);
    }

    #[test]
    fn a_device_that_is_forgotten_leaves_its_place_and_its_state_is_over() {
        let mut mill = mill();
        mill.rows(0, 600, 0.0);
        mill.rows(600, 200, 3.0);
        assert!(mill.out.pop().unwrap().began);
        mill.engine.forget_device("mill-8", 9, &mut mill.out);
        assert_eq!((mill.out.len(), mill.engine.machines.len()), (0, 1));
        mill.engine.forget_device("mill-7", 9, &mut mill.out);
        let over = mill.out.pop().unwrap();
        assert!(!over.began && over.event_time == 9 && &*over.device == "mill-7");
        assert_eq!((mill.out.len(), mill.engine.machines.len()), (0, 0));
        // One without a state goes without a word.
        mill.rows(800, 10, 0.0);
        mill.engine.forget_device("mill-7", 9, &mut mill.out);
        assert_eq!((mill.out.len(), mill.engine.machines.len()), (0, 0));
    }

    #[test]
    fn what_is_wrong_is_said_and_the_text_means_the_same() {
        let read = specs(TEXT).unwrap();
        assert_eq!(specs(&format!("[detect]\n{}", read.text())).unwrap(), read);
        let wrong = "[[detect.group]]\nmetrics = [\"a\"]\nseverity = \"bad\"\n\
                     [[detect.group]]\nname = \"x\"\nmetrics = [\"a\", \"a\"]\n";
        let said = specs(wrong).unwrap_err();
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said.iter().any(|line| line.contains("has `a` twice")));
    }
}
