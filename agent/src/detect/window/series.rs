//! What is kept of one series that has windows.

use super::gaps::Gaps;
use super::open::Open;
use super::spec::{Shape, WindowSpecs};
use crate::detect::sample::DeviceSlot;

/// Bytes that one kind of window takes among what is due.
const DUE_BYTES: usize = 48;

/// One kind of window of a series.
#[derive(Clone)]
pub(super) struct Held {
    /// Where it stands in the configuration.
    pub spec: u16,
    /// The time that its device has noted for it.
    pub noted: Option<i64>,
    pub open: Open,
}

impl Held {
    pub fn new(spec: u16, shape: &Shape) -> Self {
        Self {
            spec,
            noted: None,
            open: Open::new(shape),
        }
    }

    /// Lets go of what is open.
    pub fn empty(&mut self) {
        self.open = self.open.emptied();
    }
}

/// One series.
#[derive(Clone)]
pub(super) struct Series {
    pub device: DeviceSlot,
    /// Less than that of every series that came later.
    pub age: u64,
    /// The configuration that its windows are of.
    pub revision: u32,
    pub gaps: Gaps,
    /// By their place in the configuration.
    pub held: Vec<Held>,
}

impl Series {
    pub fn new(device: DeviceSlot, age: u64) -> Self {
        Self {
            device,
            age,
            revision: 0,
            gaps: Gaps::default(),
            held: Vec::new(),
        }
    }

    /// Where the windows of a place in the configuration stand, or would.
    pub fn find(&self, spec: u16) -> Result<usize, usize> {
        self.held.binary_search_by_key(&spec, |held| held.spec)
    }

    /// The same; behind the last one when there are none.
    pub fn place_of(&self, spec: u16) -> usize {
        self.find(spec).unwrap_or(self.held.len())
    }

    /// When the next window of one kind is due.
    pub fn due(&self, place: usize, specs: &WindowSpecs) -> Option<i64> {
        let held = self.held.get(place)?;
        let (_, shape) = specs.at(held.spec)?;
        held.open.due(shape)
    }

    /// What the device had noted is gone.
    pub fn forget_noted(&mut self, place: usize) {
        if let Some(held) = self.held.get_mut(place) {
            held.noted = None;
        }
    }

    /// Up to where the windows of each kind are closed.
    pub fn closed_to(&self) -> Vec<i64> {
        self.held.iter().map(|held| held.open.closed_to()).collect()
    }

    /// Goes on, with nothing open, in another time.
    pub fn begin_anew(&mut self, specs: &WindowSpecs, newest: i64, closed_before: &[i64]) {
        self.gaps.begin_anew();
        for (held, closed_before) in self.held.iter_mut().zip(closed_before) {
            if let Some((_, shape)) = specs.at(held.spec) {
                held.open.begin_anew(shape, newest, *closed_before);
            }
        }
    }

    /// Moves each kind to its new place in the configuration, and drops those that have none. How
    /// many open ones that were.
    pub fn move_to(&mut self, places: &[Option<u16>]) -> u64 {
        let before = self.open_windows();
        self.held.retain_mut(|held| {
            let place = places.get(usize::from(held.spec)).copied().flatten();
            place.is_some_and(|place| {
                held.spec = place;
                true
            })
        });
        self.held.sort_unstable_by_key(|held| held.spec);
        before - self.open_windows()
    }

    /// Panes, sessions and counts that are open.
    pub fn open_windows(&self) -> u64 {
        self.held.iter().map(|held| held.open.len() as u64).sum()
    }

    /// Bytes of these.
    pub fn open_bytes(&self) -> usize {
        self.held.iter().map(|held| held.open.bytes()).sum()
    }

    /// Bytes beside these.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.held.len() * (size_of::<Held>() + DUE_BYTES)
    }
}
