//! What a series is, and the book of one buffer's series.
//!
//! A definition comes in through [`SeriesDef::new`] only. The book says what a number means; it
//! does not say who may define one.

use crate::ids::{SeriesId, is_name};
use crate::limits::{NAME_BYTES_MAX, SERIES_MAX};
use crate::reading::ValueType;
use std::sync::Arc;

/// Why a series cannot be defined so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{name}` is not a usable {part} of a series: expected 1 to {NAME_BYTES_MAX} bytes without \
     control characters"
)]
pub struct NameError {
    /// Which name it is: device, metric or unit.
    pub part: &'static str,
    /// The name.
    pub name: String,
}

/// One series of an agent: what a [`SeriesId`] stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SeriesDef {
    /// What publishes it.
    pub device: Arc<str>,
    /// What is measured.
    pub metric: Arc<str>,
    /// In which unit, if that is known.
    pub unit: Option<Arc<str>>,
    /// The kind of all its values.
    pub value_type: ValueType,
}

impl SeriesDef {
    /// A series with checked names: the door for names from outside.
    ///
    /// # Errors
    /// The first name that is not [usable](is_name).
    pub fn new(
        device: &str,
        metric: &str,
        unit: Option<&str>,
        value_type: ValueType,
    ) -> Result<Self, NameError> {
        let def = Self {
            device: device.into(),
            metric: metric.into(),
            unit: unit.map(Into::into),
            value_type,
        };
        def.check()?;
        Ok(def)
    }

    /// Checks the names, for a definition whose fields were filled in.
    ///
    /// # Errors
    /// The first name that is not [usable](is_name).
    pub fn check(&self) -> Result<(), NameError> {
        let unit = self.unit.as_deref().map(|unit| ("unit", unit));
        let names = [("device", &*self.device), ("metric", &*self.metric)];
        match names
            .into_iter()
            .chain(unit)
            .find(|(_, name)| !is_name(name))
        {
            Some((part, name)) => Err(NameError {
                part,
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// Why definitions do not fit a book.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BookError {
    /// Definitions between those known and these are missing.
    #[error("series {base} and on are defined, but only {known} are known: some are missing")]
    Hole {
        /// How many are known.
        known: u32,
        /// Number of the first one defined.
        base: u32,
    },
    /// A number would change its meaning.
    #[error("series {0} is defined a second time, as something else")]
    Redefined(u32),
    /// More series than a buffer may have.
    #[error("more than {SERIES_MAX} series in one buffer")]
    Full,
    /// A name is not usable.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The definitions of one buffer, dense from 0. They are only added to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeriesBook {
    defs: Vec<SeriesDef>,
}

impl SeriesBook {
    /// A book without definitions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds definitions of the series `base` and on. Those known already must be equal.
    ///
    /// # Errors
    /// When a definition is missing before these, changed by them, or one too many. The book is
    /// as before then.
    pub fn append(&mut self, base: u32, defs: &[SeriesDef]) -> Result<(), BookError> {
        let start = base as usize;
        if start > self.defs.len() {
            return Err(BookError::Hole {
                known: self.len(),
                base,
            });
        }
        let known = self.defs.get(start..).unwrap_or_default();
        if let Some(i) = known.iter().zip(defs).position(|(old, new)| old != new) {
            return Err(BookError::Redefined(base + i as u32));
        }
        let new = defs.get(known.len()..).unwrap_or_default();
        if self.defs.len() + new.len() > SERIES_MAX {
            return Err(BookError::Full);
        }
        new.iter().try_for_each(SeriesDef::check)?;
        self.defs.extend_from_slice(new);
        Ok(())
    }

    /// What this number stands for.
    pub fn get(&self, series: SeriesId) -> Option<&SeriesDef> {
        self.defs.get(series.0 as usize)
    }

    /// How many series are defined.
    pub fn len(&self) -> u32 {
        self.defs.len() as u32
    }

    /// Whether none is defined.
    pub fn is_empty(&self) -> bool {
        self.defs.is_empty()
    }

    /// The definitions, by number.
    pub fn defs(&self) -> &[SeriesDef] {
        &self.defs
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn def(metric: &str) -> SeriesDef {
        SeriesDef::new("pump-1", metric, Some("bar"), ValueType::F64).unwrap()
    }

    #[test]
    fn a_book_grows_densely_and_never_redefines() {
        let mut book = SeriesBook::new();
        book.append(0, &[def("a"), def("b")]).unwrap();
        book.append(1, &[def("b"), def("c")]).unwrap();
        book.append(0, &[def("a")]).unwrap();
        assert_eq!(book.len(), 3);
        assert_eq!(
            book.append(4, &[def("e")]),
            Err(BookError::Hole { known: 3, base: 4 })
        );
        assert_eq!(
            book.append(1, &[def("b"), def("x")]),
            Err(BookError::Redefined(2))
        );
        assert_eq!(book.get(SeriesId(2)), Some(&def("c")));
        assert_eq!(book.get(SeriesId(3)), None);
        assert_eq!(book.len(), 3);
    }

    #[test]
    fn a_bad_name_is_refused_and_named() {
        let bad = SeriesDef {
            unit: Some("\u{0}".into()),
            ..def("a")
        };
        let mut book = SeriesBook::new();
        let Err(BookError::Name(wrong)) = book.append(0, &[def("a"), bad]) else {
            unreachable!("the unit is not usable");
        };
        assert_eq!(wrong.part, "unit");
        assert!(book.is_empty());
    }
}
