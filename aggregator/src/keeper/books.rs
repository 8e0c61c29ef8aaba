//! The books of all buffers: what their series are called. Definitions are only added, so that a
//! reader may see a longer book than its batch needs, never another meaning.

use crate::lake::load::{Names, SeriesName};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tributary_protocol::ids::{AgentId, BufferId, SeriesId};
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::{BookError, SeriesBook, SeriesDef};

type Book = Arc<RwLock<Pages>>;

#[derive(Debug, Default)]
struct Pages {
    series: SeriesBook,
    /// Definitions of this buffer are in quarantine: they will never stand here.
    torn: bool,
}

/// All books, shared by the keeper, which alone writes, and the sinks.
#[derive(Clone, Debug, Default)]
pub struct Books(Arc<RwLock<HashMap<(AgentId, BufferId), Book>>>);

impl Books {
    /// No book at all.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self, agent: &AgentId, buffer: BufferId) -> Option<Book> {
        let books = self.0.read().unwrap_or_else(PoisonError::into_inner);
        books.get(&(agent.clone(), buffer)).cloned()
    }

    /// How many series of a buffer are defined.
    pub fn len(&self, agent: &AgentId, buffer: BufferId) -> u32 {
        let book = self.book(agent, buffer);
        book.map_or(0, |book| {
            book.read()
                .unwrap_or_else(PoisonError::into_inner)
                .series
                .len()
        })
    }

    /// How many books there are.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether these definitions could be added now.
    ///
    /// # Errors
    /// As [`SeriesBook::append`].
    pub fn fits(
        &self,
        agent: &AgentId,
        buffer: BufferId,
        base: u32,
        defs: &[SeriesDef],
    ) -> Result<(), BookError> {
        let Some(book) = self.book(agent, buffer) else {
            return SeriesBook::new().append(base, defs);
        };
        let book = &book.read().unwrap_or_else(PoisonError::into_inner).series;
        if base > book.len() {
            return Err(BookError::Hole {
                known: book.len(),
                base,
            });
        }
        let known = book.defs().get(base as usize..).unwrap_or_default();
        if let Some(i) = known.iter().zip(defs).position(|(old, new)| old != new) {
            return Err(BookError::Redefined(base + i as u32));
        }
        // What is new is checked by a book of its own, at the place where it would stand.
        let new = defs.get(known.len()..).unwrap_or_default();
        if book.len() as usize + new.len() > tributary_protocol::limits::SERIES_MAX {
            return Err(BookError::Full);
        }
        SeriesBook::new().append(0, new)
    }

    /// Whether all these series are defined, with these types.
    ///
    /// # Errors
    /// Which one is not.
    pub fn check(
        &self,
        agent: &AgentId,
        buffer: BufferId,
        types: &[(SeriesId, ValueType)],
    ) -> Result<(), String> {
        let book = self.book(agent, buffer).unwrap_or_default();
        let book = &book.read().unwrap_or_else(PoisonError::into_inner).series;
        for (series, value_type) in types {
            match book.get(*series) {
                None => return Err(format!("series {} is not defined", series.0)),
                Some(def) if def.value_type != *value_type => {
                    let is = def.value_type;
                    return Err(format!("series {} holds {value_type}, not {is}", series.0));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Adds definitions.
    ///
    /// # Errors
    /// As [`SeriesBook::append`]; nothing is added then.
    pub fn append(
        &self,
        agent: &AgentId,
        buffer: BufferId,
        base: u32,
        defs: &[SeriesDef],
    ) -> Result<(), BookError> {
        let book = self.book_or_new(agent, buffer);
        let mut book = book.write().unwrap_or_else(PoisonError::into_inner);
        book.series.append(base, defs)
    }

    fn book_or_new(&self, agent: &AgentId, buffer: BufferId) -> Book {
        let mut books = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(books.entry((agent.clone(), buffer)).or_default())
    }

    /// Definitions of this buffer are in quarantine: what needs them waits in vain.
    pub fn tear(&self, agent: &AgentId, buffer: BufferId) {
        let book = self.book_or_new(agent, buffer);
        book.write().unwrap_or_else(PoisonError::into_inner).torn = true;
    }

    /// Whether definitions of this buffer are in quarantine.
    pub fn is_torn(&self, agent: &AgentId, buffer: BufferId) -> bool {
        self.book(agent, buffer)
            .is_some_and(|book| book.read().unwrap_or_else(PoisonError::into_inner).torn)
    }

    /// Calls `see` with every book, and whether it is [torn](Self::is_torn), ordered by agent and
    /// buffer.
    pub fn each(&self, mut see: impl FnMut(&AgentId, BufferId, &SeriesBook, bool)) {
        let mut all: Vec<((AgentId, BufferId), Book)> = {
            let books = self.0.read().unwrap_or_else(PoisonError::into_inner);
            books
                .iter()
                .map(|(key, book)| (key.clone(), Arc::clone(book)))
                .collect()
        };
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((agent, buffer), book) in all {
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            see(&agent, buffer, &book.series, book.torn);
        }
    }
}

impl Names for Books {
    fn name(&self, agent: &AgentId, buffer: BufferId, series: SeriesId) -> Option<SeriesName> {
        let book = self.book(agent, buffer)?;
        let book = book.read().unwrap_or_else(PoisonError::into_inner);
        let def = book.series.get(series)?;
        Some(SeriesName {
            device: Arc::clone(&def.device),
            metric: Arc::clone(&def.metric),
            unit: def.unit.clone().unwrap_or_default(),
            value_type: def.value_type,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tributary_protocol::ids::AgentUuid;

    #[test]
    fn what_fits_is_what_can_be_appended() {
        let agent = AgentId::new("acme", AgentUuid([1; 16])).unwrap();
        let buffer = BufferId::new(1, 1);
        let def = |metric: &str| SeriesDef::new("pump", metric, None, ValueType::F64).unwrap();
        let books = Books::new();
        books
            .append(&agent, buffer, 0, &[def("a"), def("b")])
            .unwrap();
        let offers = [
            (0, vec![def("a")]),
            (1, vec![def("b"), def("c")]),
            (1, vec![def("x")]),
            (2, vec![def("c")]),
            (3, vec![def("d")]),
        ];
        for (base, defs) in offers {
            let fits = books.fits(&agent, buffer, base, &defs);
            let copy = Books::new();
            copy.append(&agent, buffer, 0, &[def("a"), def("b")])
                .unwrap();
            assert_eq!(
                fits,
                copy.append(&agent, buffer, base, &defs),
                "{base} {defs:?}"
            );
        }
        assert_eq!(books.len(&agent, buffer), 2, "asking changes nothing");
        let name = books.name(&agent, buffer, SeriesId(1)).unwrap();
        assert_eq!((&*name.metric, &*name.unit), ("b", ""));
    }
}
