//! The books of all buffers: what their series are called. Definitions are only added, so that a
//! reader may see a longer book than its batch needs, never another meaning.

use crate::lake::load::{Names, SeriesName};
use crate::limits::{AGENT_BOOKS_BYTES_MAX, BOOKS_BYTES_MAX};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tributary_protocol::ids::{AgentId, BufferId, SeriesId};
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::{BookError, SeriesBook, SeriesDef};

type Book = Arc<RwLock<Pages>>;

#[derive(Debug, Default)]
struct Pages {
    series: SeriesBook,
    /// Definitions of this buffer are in quarantine: they will never stand here.
    torn: bool,
    /// One past the last journal entry of this buffer.
    end: u64,
    /// The agent no longer has this buffer.
    retired: bool,
}

#[derive(Debug, Default)]
struct Shelf {
    books: BTreeMap<(AgentId, BufferId), Book>,
    /// Bytes of all definitions of an agent.
    bytes: HashMap<AgentId, u64>,
    total: u64,
}

impl Shelf {
    fn of_agent(&self, agent: &AgentId) -> impl Iterator<Item = (BufferId, &Book)> {
        let (first, last) = (BufferId([0; 16]), BufferId([0xff; 16]));
        let range = (agent.clone(), first)..=(agent.clone(), last);
        self.books
            .range(range)
            .map(|((_, buffer), book)| (*buffer, book))
    }
}

/// Bytes of definitions in a checkpoint.
fn bytes_of(defs: &[SeriesDef]) -> u64 {
    let text = |text: &str| text.len() as u64 + 2;
    defs.iter()
        .map(|def| {
            1 + text(&def.device) + text(&def.metric) + text(def.unit.as_deref().unwrap_or(""))
        })
        .sum()
}

/// All books, shared by the keeper, which alone writes, and the sinks.
#[derive(Clone, Debug, Default)]
pub struct Books(Arc<RwLock<Shelf>>);

impl Books {
    /// No book at all.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self, agent: &AgentId, buffer: BufferId) -> Option<Book> {
        let books = self.0.read().unwrap_or_else(PoisonError::into_inner);
        books.books.get(&(agent.clone(), buffer)).cloned()
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
        self.read().books.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for so many more definitions of this agent: what does not fit a
    /// checkpoint would stop everybody.
    pub fn has_room(&self, agent: &AgentId, defs: &[SeriesDef]) -> bool {
        let (shelf, more) = (self.read(), bytes_of(defs));
        let of_agent = shelf.bytes.get(agent).copied().unwrap_or(0);
        of_agent + more <= AGENT_BOOKS_BYTES_MAX && shelf.total + more <= BOOKS_BYTES_MAX
    }

    /// The journal holds something of this buffer up to here: the agent has it.
    pub fn touch(&self, agent: &AgentId, buffer: BufferId, end: u64) {
        if let Some(book) = self.book(agent, buffer) {
            let mut book = book.write().unwrap_or_else(PoisonError::into_inner);
            book.end = book.end.max(end);
            book.retired = false;
        }
    }

    /// As [`touch`](Self::touch), for all buffers that a checkpoint knows.
    pub fn touch_all(&self, end: u64) {
        for book in self.read().books.values() {
            book.write().unwrap_or_else(PoisonError::into_inner).end = end;
        }
    }

    /// The agent has these buffers, and others only if it begins them from now on.
    pub fn announce(&self, agent: &AgentId, announced: &[BufferId]) {
        for (buffer, book) in self.read().of_agent(agent) {
            let mut book = book.write().unwrap_or_else(PoisonError::into_inner);
            book.retired = !announced.contains(&buffer);
        }
    }

    /// Drops the books of buffers that their agents no longer have, if no entry of theirs lies at
    /// `below` or behind: nobody needs them to read the journal. Those that are `needed` all the
    /// same stay.
    pub fn drop_retired(&self, below: u64, needed: impl Fn(&AgentId, BufferId) -> bool) {
        let shelf = &mut *self.write();
        let (bytes, total) = (&mut shelf.bytes, &mut shelf.total);
        shelf.books.retain(|(agent, buffer), book| {
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            let keep = !book.retired || book.end > below || needed(agent, *buffer);
            if !keep {
                let freed = bytes_of(book.series.defs());
                *total = total.saturating_sub(freed);
                if let Some(bytes) = bytes.get_mut(agent) {
                    *bytes = bytes.saturating_sub(freed);
                }
            }
            keep
        });
        bytes.retain(|_, bytes| *bytes > 0);
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
        let shared = self.book_or_new(agent, buffer);
        let mut book = shared.write().unwrap_or_else(PoisonError::into_inner);
        let before = book.series.len() as usize;
        book.series.append(base, defs)?;
        let more = bytes_of(book.series.defs().get(before..).unwrap_or_default());
        drop(book);
        let mut shelf = self.write();
        shelf.total += more;
        *shelf.bytes.entry(agent.clone()).or_default() += more;
        Ok(())
    }

    fn book_or_new(&self, agent: &AgentId, buffer: BufferId) -> Book {
        let mut books = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(books.books.entry((agent.clone(), buffer)).or_default())
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
        let all: Vec<((AgentId, BufferId), Book)> = {
            let shelf = self.read();
            let books = shelf.books.iter();
            books
                .map(|(key, book)| (key.clone(), Arc::clone(book)))
                .collect()
        };
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
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

    #[test]
    fn no_agent_fills_the_checkpoint_and_drained_buffers_give_back() {
        let [greedy, other] = [1, 2].map(|n| AgentId::new("acme", AgentUuid([n; 16])).unwrap());
        let books = Books::new();
        let mut buffers = Vec::new();
        let long = "x".repeat(240);
        let block = |n: u32| -> Vec<SeriesDef> {
            let name = |i: u32| format!("{long}{n}-{i}");
            (0..1_024)
                .map(|i| SeriesDef::new(&name(i), &long, Some(&long), ValueType::F64).unwrap())
                .collect()
        };
        for n in 0.. {
            let defs = block(n);
            if !books.has_room(&greedy, &defs) {
                break;
            }
            let buffer = BufferId::new(1, u64::from(n));
            books.append(&greedy, buffer, 0, &defs).unwrap();
            books.touch(&greedy, buffer, u64::from(n) + 1);
            buffers.push(buffer);
        }
        assert!(buffers.len() > 50, "{}", buffers.len());
        assert!(
            books.has_room(&other, &block(0)),
            "another agent has its own"
        );
        books.announce(&greedy, &buffers[1..]);
        books.drop_retired(0, |_, _| false);
        assert_eq!(books.count(), buffers.len(), "the lake still needs it");
        books.drop_retired(1, |agent, buffer| (agent, buffer) == (&greedy, buffers[0]));
        assert_eq!(books.count(), buffers.len(), "somebody still needs it");
        books.drop_retired(1, |_, _| false);
        assert_eq!(books.count(), buffers.len() - 1);
        assert!(books.has_room(&greedy, &block(0)));
        // Whatever is begun after a Hello is there although the Hello does not name it.
        books.announce(&greedy, &[]);
        books.touch(&greedy, buffers[1], 9);
        books.drop_retired(u64::MAX, |_, _| false);
        assert_eq!(books.count(), 1);
    }
}
