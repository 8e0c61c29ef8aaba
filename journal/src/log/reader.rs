//! Reading entries back, from any thread, never beyond the durable end.
//!
//! Every frame is verified again when it is read. What is damaged is named, so that the caller
//! can declare it and go on behind it; a reader never skips by itself.

use crate::disk::DiskFile;
use crate::log::format::segment_name;
use crate::log::frame::Entries;
use crate::log::quarantine;
use crate::log::scan::{Behind, RawFrame, Scan};
use crate::log::state::{Segment, SegmentKey, Shared};
use crate::log::{Entry, LifeId, LifeSpan, LogError, SegmentInfo};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the last read ended, so that reading on needs no search.
struct Place {
    key: SegmentKey,
    file: Arc<dyn DiskFile>,
    /// A frame that begins with this number stands at this offset.
    number: u64,
    at: u64,
}

/// A reader. Clones are independent: each remembers a place of its own.
pub struct LogReader {
    shared: Arc<Shared>,
    place: Mutex<Option<Place>>,
}

impl Clone for LogReader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

/// How much one read gives, about.
#[derive(Clone, Copy)]
struct Most {
    /// Bytes behind which no further frame is looked at.
    bytes: usize,
    /// Bytes behind which nothing more of a frame is taken.
    of_frame: usize,
}

/// What one segment gave.
enum Part {
    /// Everything from there to the segment's end, or as much as was asked for.
    Read,
    /// Entries are damaged from `numbers.start` on.
    Damaged {
        numbers: Range<u64>,
        offset: u64,
        bytes: u64,
    },
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            place: Mutex::new(None),
        }
    }

    /// Adds to `out` the entries of `life` from `from` on, without a hole: at least one if there
    /// is one, and about `max_bytes` of them. Nothing when `from` is the durable end or beyond.
    ///
    /// An entry's bytes share the memory of one read (up to `max_bytes`, and 256 KiB or one
    /// frame), which is freed with the last of them.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when `from` itself cannot be read: declare those numbers, and go on
    /// at their end. [`LogError::Trimmed`] when it is gone, [`LogError::Io`] when a file cannot
    /// be opened. `out` is as it was then.
    pub fn read(
        &self,
        life: LifeId,
        from: u64,
        max_bytes: usize,
        out: &mut Vec<Entry>,
    ) -> Result<(), LogError> {
        let most = Most {
            bytes: max_bytes,
            of_frame: max_bytes,
        };
        self.read_most(life, from, most, out)
    }

    /// Adds to `out` the entries of `life` from `from` on to the end of the frame that holds it,
    /// which is looked at only once so.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_frame(
        &self,
        life: LifeId,
        from: u64,
        out: &mut Vec<Entry>,
    ) -> Result<(), LogError> {
        let most = Most {
            bytes: 1,
            of_frame: usize::MAX,
        };
        self.read_most(life, from, most, out)
    }

    fn read_most(
        &self,
        life: LifeId,
        from: u64,
        most: Most,
        out: &mut Vec<Entry>,
    ) -> Result<(), LogError> {
        let begin = out.len();
        let mut bytes = 0;
        let mut next = from;
        loop {
            let Some((key, segment)) = self.segment(life, next)? else {
                self.let_go_of_trimmed();
                return Ok(());
            };
            let part = self.read_segment(key, &segment, next, (most, &mut bytes), out)?;
            match part {
                Part::Read => {}
                Part::Damaged { .. } if out.len() > begin => return Ok(()),
                Part::Damaged {
                    numbers,
                    offset,
                    bytes,
                } => {
                    return Err(self.damaged(key, &segment, numbers, offset..offset + bytes));
                }
            }
            match out.get(begin..).and_then(<[Entry]>::last) {
                Some(last) => next = last.number + 1,
                None => return Ok(()),
            }
            if bytes >= most.bytes {
                return Ok(());
            }
        }
    }

    /// The segment that holds `number`, or nothing when that is not written yet.
    fn segment(
        &self,
        life: LifeId,
        number: u64,
    ) -> Result<Option<(SegmentKey, Segment)>, LogError> {
        let state = self.shared.lock();
        let Some(span) = state.span(life) else {
            return Err(LogError::Trimmed {
                life,
                first: number,
            });
        };
        if number >= span.end {
            return Ok(None);
        }
        match state.segment_of(life, number) {
            Some((key, segment)) => Ok(Some((key, segment.clone()))),
            None => Err(LogError::Trimmed {
                life,
                first: span.first,
            }),
        }
    }

    fn read_segment(
        &self,
        key: SegmentKey,
        segment: &Segment,
        from: u64,
        (most, bytes): (Most, &mut usize),
        out: &mut Vec<Entry>,
    ) -> Result<Part, LogError> {
        let (file, mut number, mut at) = self.place(key, segment, from)?;
        let mut scan = Scan::new(&*file, segment.key, segment.limit).with_read_bytes(most.of_frame);
        while number < segment.end && *bytes < most.bytes {
            let good = scan.frame_at(at);
            let good = good.filter(|good| (number..segment.end).contains(&good.header.first));
            let frame = match good {
                Some(frame) if frame.header.first == number => frame,
                other => {
                    // `number` is damaged. It is no matter if `from` lies behind the damage.
                    let (behind, offset) = match other {
                        Some(frame) => (frame.header.first, frame.at),
                        None => resume(&mut scan, at, number, segment),
                    };
                    let numbers = from.max(number)..behind;
                    if !numbers.is_empty() {
                        return Ok(Part::Damaged {
                            numbers,
                            offset: at,
                            bytes: offset - at,
                        });
                    }
                    (number, at) = (behind, offset);
                    continue;
                }
            };
            take(
                &frame,
                key.0,
                from..segment.end,
                (most.of_frame, bytes),
                out,
            );
            let taken = out
                .last()
                .is_none_or(|last| last.number + 1 >= frame.header.end());
            self.remember(key, &file, &frame, taken);
            number = frame.header.end();
            at = frame.next_at();
        }
        Ok(Part::Read)
    }

    /// The segment's file, and a frame in it at or before `from`.
    fn place(
        &self,
        key: SegmentKey,
        segment: &Segment,
        from: u64,
    ) -> Result<(Arc<dyn DiskFile>, u64, u64), LogError> {
        let (number, at) = segment.nearest(from);
        let (number, at) = (number.max(key.1), at);
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = place.as_ref().filter(|place| place.key == key) {
            let file = Arc::clone(&place.file);
            let near = place.number <= from && place.number >= number;
            return Ok(if near {
                (file, place.number, place.at)
            } else {
                (file, number, at)
            });
        }
        drop(place);
        let path = self.shared.path_of(key);
        match self.shared.disk.open(&path) {
            Ok(file) => Ok((Arc::from(file), number, at)),
            Err(_) if !self.held(key, segment) => Err(LogError::Trimmed {
                life: key.0,
                first: segment.end,
            }),
            Err(error) => Err(LogError::io("opening", &path, error)),
        }
    }

    /// Remembers the frame, or the place behind it when it was `taken` whole.
    fn remember(&self, key: SegmentKey, file: &Arc<dyn DiskFile>, frame: &RawFrame, taken: bool) {
        let header = &frame.header;
        if let Some(segment) = self.shared.lock().segments.get_mut(&key) {
            segment.mark(header.first, frame.at);
        }
        let (number, at) = if taken {
            (header.end(), frame.next_at())
        } else {
            (header.first, frame.at)
        };
        let place = Place {
            key,
            file: Arc::clone(file),
            number,
            at,
        };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// Whether the segment is still the one that was looked at: not trimmed, not recycled.
    fn held(&self, key: SegmentKey, segment: &Segment) -> bool {
        self.shared
            .lock()
            .segments
            .get(&key)
            .is_some_and(|held| held.key == segment.key)
    }

    /// Closes the file of a segment that is gone, so that its blocks are free.
    fn let_go_of_trimmed(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.shared.lock();
        place.take_if(|place| !state.segments.contains_key(&place.key));
    }

    /// What to say of bytes that did not verify.
    fn damaged(
        &self,
        key: SegmentKey,
        segment: &Segment,
        numbers: Range<u64>,
        bytes: Range<u64>,
    ) -> LogError {
        let life = key.0;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.held(key, segment) {
            // It was trimmed, and perhaps recycled, while it was being read.
            return LogError::Trimmed {
                life,
                first: numbers.end,
            };
        }
        let name = segment_name(life, key.1);
        if let Ok(file) = self.shared.disk.open(&self.shared.path_of(key)) {
            let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
            quarantine::copy(
                disk,
                dir,
                &name,
                &*file,
                bytes.start,
                bytes.end - bytes.start,
            );
        }
        tracing::warn!(%life, ?numbers, segment = name, ?bytes, "damage in a log");
        LogError::Damaged {
            life,
            numbers,
            segment: name,
            offset: bytes.start,
            bytes: bytes.end - bytes.start,
        }
    }

    /// What is held of each life, oldest first.
    pub fn lives(&self) -> Vec<LifeSpan> {
        self.shared.lock().lives()
    }

    /// One more than the last durable number of `life`; `None` when nothing is held of it.
    pub fn end(&self, life: LifeId) -> Option<u64> {
        self.shared.lock().span(life).map(|span| span.end)
    }

    /// About how many bytes the entries of `life` from `from` on take: whole segments are
    /// counted, the one that holds `from` by its share of numbers.
    pub fn bytes_from(&self, life: LifeId, from: u64) -> u64 {
        let state = self.shared.lock();
        let share = |(first, segment): (u64, &Segment)| {
            let all = segment.end.saturating_sub(first);
            let left = segment.end.saturating_sub(from.max(first));
            let part = u128::from(segment.limit) * u128::from(left) / u128::from(all.max(1));
            u64::try_from(part).unwrap_or(segment.limit)
        };
        state.of_life(life).map(share).sum()
    }

    /// Gives up the segments of `life` that hold only numbers below `below`, and says how many
    /// bytes the file system got back (one segment is kept for the writer instead, if it has
    /// none ahead). Durable on return. Other lives are left alone, and so is the newest segment
    /// of the life that is written. A crash may bring back what was being trimmed, never with a
    /// hole in it.
    ///
    /// # Errors
    /// When the disk fails; what was trimmed before stays so.
    pub fn trim(&self, life: LifeId, below: u64) -> Result<u64, LogError> {
        self.shared.trim(life, below)
    }

    /// Whether the writer found no room for its next segment, and has not found any since: what
    /// is trimmed now, it can use.
    pub fn is_short(&self) -> bool {
        self.shared.lock().short
    }

    /// Every segment, by life and number.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments()
    }
}

/// Where reading can go on behind the bad bytes at `at`: the number, and the offset.
fn resume(scan: &mut Scan<'_>, at: u64, number: u64, segment: &Segment) -> (u64, u64) {
    match scan.behind(at, number) {
        Behind::Frame(frame) if frame.header.first < segment.end => (frame.header.first, frame.at),
        _ => (segment.end, segment.limit.max(at)),
    }
}

/// Adds the frame's entries in `numbers`, at least one, until there are `max_bytes`.
fn take(
    frame: &RawFrame,
    life: LifeId,
    numbers: Range<u64>,
    (max_bytes, bytes): (usize, &mut usize),
    out: &mut Vec<Entry>,
) {
    let entries = Entries::new(frame.payload.clone(), frame.header.count);
    for (number, (kind, entry)) in (frame.header.first..).zip(entries) {
        if numbers.contains(&number) {
            *bytes += entry.len();
            out.push(Entry {
                life,
                number,
                kind,
                bytes: entry,
            });
            if *bytes >= max_bytes {
                return;
            }
        }
    }
}
