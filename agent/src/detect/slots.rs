//! What is kept for each series or device at hand, found by its place. No place beyond the bound.

use crate::limits::DETECT_SLOTS_MAX;
use std::ops::Range;

/// One `T` for each place that has one.
#[derive(Clone, Debug)]
pub(super) struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    /// What is kept there.
    pub fn at(&self, place: u32) -> Option<&T> {
        self.0.get(place as usize)?.as_ref()
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.0.get_mut(place as usize)?.as_mut()
    }

    /// Where what is kept there may be put; `None` beyond the bound.
    pub fn room(&mut self, place: u32) -> Option<&mut Option<T>> {
        let place = place as usize;
        if place >= DETECT_SLOTS_MAX {
            return None;
        }
        if place >= self.0.len() {
            self.0.resize_with(place + 1, || None);
        }
        self.0.get_mut(place)
    }

    /// Takes out what is kept there.
    pub fn take(&mut self, place: u32) -> Option<T> {
        self.0.get_mut(place as usize)?.take()
    }

    /// All that is kept, by place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let places = (0..).zip(&self.0);
        places.filter_map(|(place, kept)| Some((place, kept.as_ref()?)))
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What is kept at these places.
    pub fn range(&self, at: Range<usize>) -> impl Iterator<Item = (u32, &T)> {
        let to = at.end.min(self.0.len());
        let kept = self.0.get(at.start..to).unwrap_or_default();
        let places = (at.start as u32..).zip(kept);
        places.filter_map(|(place, kept)| Some((place, kept.as_ref()?)))
    }

    /// All that is kept, by place, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = (0..).zip(&mut self.0);
        places.filter_map(|(place, kept)| Some((place, kept.as_mut()?)))
    }
}
