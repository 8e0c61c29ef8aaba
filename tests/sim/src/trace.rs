//! What happened in a run, as one hash, and on request its last lines. Same plan, same hash.

use crate::limits::TRACE_LINES_MAX;
use std::collections::VecDeque;
use std::fmt;

/// The hash of everything that was noted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceHash([u8; 32]);

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What happened so far.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    /// The last lines; none are kept unless somebody looks.
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// Nothing happened. `watched`: somebody will read the lines.
    pub fn new(watched: bool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            lines: watched.then(VecDeque::new),
        }
    }

    /// Something happened at `now`: what `code` it has, to which entities, with which bytes. The
    /// line is made only if somebody looks, and kept if it says anything.
    pub fn note(
        &mut self,
        now: i64,
        (code, entities): (u8, [u64; 2]),
        bytes: &[u8],
        line: impl FnOnce() -> String,
    ) {
        let mut head = [0; 25];
        let fields = [now as u64, entities[0], entities[1]];
        for (place, field) in head.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        head[24] = code;
        self.hasher.update(&head);
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        if let Some(lines) = &mut self.lines {
            let line = line();
            if line.is_empty() {
                return;
            }
            if lines.len() == TRACE_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!("{:>13} {}", micros(now), line));
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> TraceHash {
        TraceHash(*self.hasher.finalize().as_bytes())
    }

    /// The last lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}

/// Microseconds, as seconds for people.
fn micros(us: i64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_shows_in_the_hash() {
        let hash = |now, code, entities, bytes: &[u8]| {
            let mut trace = Trace::new(false);
            trace.note(now, (code, entities), bytes, || {
                unreachable!("nobody looks")
            });
            trace.hash()
        };
        let base = hash(1, 2, [3, 4], b"x");
        assert_eq!(base, hash(1, 2, [3, 4], b"x"));
        for other in [
            hash(2, 2, [3, 4], b"x"),
            hash(1, 3, [3, 4], b"x"),
            hash(1, 2, [4, 4], b"x"),
            hash(1, 2, [3, 3], b"x"),
            hash(1, 2, [3, 4], b"y"),
            hash(1, 2, [3, 4], b""),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut trace = Trace::new(true);
        let more = TRACE_LINES_MAX as i64 + 7;
        for at in 1..=more {
            trace.note(at, (0, [0, 0]), &[], || format!("line {at}"));
        }
        let lines = trace.into_lines();
        assert_eq!(lines.len(), TRACE_LINES_MAX);
        assert!(
            lines
                .last()
                .is_some_and(|line| line.ends_with(&format!(" line {more}")))
        );
    }
}
