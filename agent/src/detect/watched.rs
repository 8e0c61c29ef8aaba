//! What is watched: series and devices by their names, in places that are used again.

use std::fmt;
use std::sync::Arc;

/// What stands between a device's name and its metric's: no name holds it.
const BETWEEN: char = '\0';

/// A device and a metric of it, in one text that is shared by all who need it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject(Arc<str>);

impl Subject {
    pub fn new(device: &str, metric: &str) -> Self {
        Self(Self::key(device, metric).into())
    }

    /// The text itself, by which it is looked for.
    pub fn key(device: &str, metric: &str) -> String {
        format!("{device}{BETWEEN}{metric}")
    }

    pub fn text(&self) -> &Arc<str> {
        &self.0
    }

    pub fn device(&self) -> &str {
        self.0.split_once(BETWEEN).map_or("", |(device, _)| device)
    }

    pub fn metric(&self) -> &str {
        self.0.split_once(BETWEEN).map_or("", |(_, metric)| metric)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device(), self.metric())
    }
}

/// Places that are used again.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn add(&mut self, entry: T) -> u32 {
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        match self.places.get_mut(place as usize) {
            Some(free) => *free = Some(entry),
            None => self.places.push(Some(entry)),
        }
        place
    }

    pub fn remove(&mut self, place: u32) -> Option<T> {
        let removed = self.places.get_mut(place as usize)?.take();
        if removed.is_some() {
            self.free.push(place);
        }
        removed
    }

    pub fn at(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.as_ref()
    }

    pub fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let places = (0..).zip(&self.places);
        places.filter_map(|(place, entry)| Some((place, entry.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = (0..).zip(&mut self.places);
        places.filter_map(|(place, entry)| Some((place, entry.as_mut()?)))
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
