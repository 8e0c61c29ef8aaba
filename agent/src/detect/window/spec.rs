//! Which windows there are, and of which series.

use crate::decode::{Filter, quoted};
use crate::limits::WINDOW_SPECS_MAX;
use std::sync::Arc;

/// What a window holds. Times are µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowKind {
    /// `size` long, one behind the other.
    Tumbling {
        /// How long.
        size: i64,
    },
    /// `size` long, one beginning `every` after another.
    Sliding {
        /// How long.
        size: i64,
        /// How often.
        every: i64,
    },
    /// Readings with no pause of `gap` between them.
    Session {
        /// The pause that ends it.
        gap: i64,
        /// How long it may get.
        length_max: i64,
    },
    /// So many readings, as they come.
    Count {
        /// How many.
        readings: u64,
        /// How long it may get.
        length_max: i64,
    },
}

/// Windows over the series that are selected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowSpec {
    /// What its aggregates are called by.
    pub name: Arc<str>,
    /// Which devices.
    pub devices: Vec<Filter>,
    /// Which of their metrics.
    pub metrics: Vec<Filter>,
    /// What a window holds.
    pub kind: WindowKind,
    /// How far apart readings are, µs; else the median of the gaps seen says so.
    pub expected_interval: Option<i64>,
}

impl WindowSpec {
    /// Whether it is for this series.
    pub fn is_for(&self, device: &str, metric: &str) -> bool {
        let any = |filters: &[Filter], name: &str| filters.iter().any(|f| f.is_for(name));
        any(&self.devices, device) && any(&self.metrics, metric)
    }

    /// What is asked of it for each reading.
    pub(super) fn shape(&self) -> Shape {
        match self.kind {
            WindowKind::Tumbling { size } => Shape::Hop(Hop::new(size, size)),
            WindowKind::Sliding { size, every } => Shape::Hop(Hop::new(size, every)),
            WindowKind::Session { gap, length_max } => Shape::Session { gap, length_max },
            WindowKind::Count {
                readings,
                length_max,
            } => Shape::Count {
                readings,
                length_max,
            },
        }
    }

    /// What it means, as the section that it is read from, with every default written out. Equal
    /// texts mean the same, and state of one is state of the other.
    pub(super) fn text(&self) -> String {
        let list = |filters: &[Filter]| {
            let quoted: Vec<String> = filters.iter().map(|f| quoted(f.text())).collect();
            format!("[{}]", quoted.join(", "))
        };
        let mut text = format!(
            "[[detect.window]]\nname = {}\ndevices = {}\nmetrics = {}\n",
            quoted(&self.name),
            list(&self.devices),
            list(&self.metrics),
        );
        let kind = match self.kind {
            WindowKind::Tumbling { .. } => "tumbling",
            WindowKind::Sliding { .. } => "sliding",
            WindowKind::Session { .. } => "session",
            WindowKind::Count { .. } => "count",
        };
        let mut put = |key: &str, value: String| {
            for part in [key, " = ", &value, "\n"] {
                text.push_str(part);
            }
        };
        let ms = |us: i64| (us / 1_000).to_string();
        put("kind", quoted(kind));
        match self.kind {
            WindowKind::Tumbling { size } => put("size_ms", ms(size)),
            WindowKind::Sliding { size, every } => {
                put("size_ms", ms(size));
                put("every_ms", ms(every));
            }
            WindowKind::Session { gap, length_max } => {
                put("gap_ms", ms(gap));
                put("length_max_ms", ms(length_max));
            }
            WindowKind::Count {
                readings,
                length_max,
            } => {
                put("readings", readings.to_string());
                put("length_max_ms", ms(length_max));
            }
        }
        if let Some(interval) = self.expected_interval {
            put("expected_interval_ms", ms(interval));
        }
        text
    }
}

/// A kind of window as it is computed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Hop(Hop),
    Session { gap: i64, length_max: i64 },
    Count { readings: u64, length_max: i64 },
}

/// Lengths of a tumbling or sliding window, µs, above 0: of a window, from one's end to the next's,
/// and of the panes that they are put together from, which is the greatest common divisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hop {
    pub size: i64,
    pub every: i64,
    pub pane: i64,
}

impl Hop {
    pub fn new(size: i64, every: i64) -> Self {
        let (size, every) = (size.max(1), every.max(1));
        Self {
            size,
            every,
            pane: divisor(size, every),
        }
    }

    /// Panes of one window.
    pub fn panes(&self) -> u64 {
        (self.size / self.pane).unsigned_abs()
    }

    /// Where the pane of a time begins.
    pub fn pane_of(&self, time: i64) -> i64 {
        time - time.rem_euclid(self.pane)
    }

    /// The end of the first window that ends behind `time`.
    pub fn first_end(&self, time: i64) -> i64 {
        time - time.rem_euclid(self.every) + self.every
    }

    /// The end of the last window that holds `time`.
    pub fn last_end(&self, time: i64) -> i64 {
        let most = time + self.size;
        most - most.rem_euclid(self.every)
    }
}

/// The greatest common divisor (Euclid).
fn divisor(a: i64, b: i64) -> i64 {
    match b {
        0 => a,
        b => divisor(b, a % b),
    }
}

/// All windows of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WindowSpecs {
    specs: Vec<(Arc<WindowSpec>, Shape)>,
}

impl WindowSpecs {
    /// These windows; no more than fit.
    pub(super) fn new(specs: impl IntoIterator<Item = WindowSpec>) -> Self {
        let shaped = |spec: WindowSpec| {
            let shape = spec.shape();
            (Arc::new(spec), shape)
        };
        Self {
            specs: specs
                .into_iter()
                .take(WINDOW_SPECS_MAX)
                .map(shaped)
                .collect(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &WindowSpec> {
        self.specs.iter().map(|(spec, _)| &**spec)
    }

    /// All of them as the sections that they are read from, with every default written out.
    pub fn text(&self) -> String {
        self.iter().map(WindowSpec::text).collect()
    }

    /// One of them, with its shape.
    pub(super) fn at(&self, place: u16) -> Option<(&Arc<WindowSpec>, &Shape)> {
        let (spec, shape) = self.specs.get(usize::from(place))?;
        Some((spec, shape))
    }

    /// Places of those that are for a series.
    pub(super) fn places_for(&self, device: &str, metric: &str) -> impl Iterator<Item = u16> {
        let places = (0_u16..).zip(self.iter());
        places
            .filter(move |(_, spec)| spec.is_for(device, metric))
            .map(|(place, _)| place)
    }

    /// Where the one stands that means the same.
    pub(super) fn place_of(&self, text: &str) -> Option<u16> {
        let found = self.iter().position(|spec| spec.text() == text)?;
        u16::try_from(found).ok()
    }
}
