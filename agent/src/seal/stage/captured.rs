//! Captures: readings that leave as aggregates alone are taken back out of the log around an alert,
//! and the log is kept for that.
//!
//! A record `capture` is as a message with their readings: the batch that covers it holds them, so
//! they are there once whenever the power fails.

use super::indexed::ReadBack;
use super::put_back::message_in;
use super::{
    Checkpoint, How, LogError, Message, Now, Origin, RecordKind, SealConfig, SealStage, StageError,
    Stores,
};
use crate::capture::{CaptureRecord, Captures};
use crate::forward::Leaves;
use crate::limits::{CAPTURE_MESSAGES_BYTES_MAX, CAPTURE_READINGS_MAX, CHECKPOINT_WAL_BYTES};
use crate::marks::Judged;
use crate::seal::capture::count_missed;
use metrics::{counter, gauge};
use tracing::warn;
use tributary_journal::{Entry, SegmentInfo};
use tributary_protocol::ids::{BufferId, Lane};
use tributary_protocol::limits::BATCH_READINGS_TARGET;
use tributary_protocol::reading::Flags;

/// What became of readings that leave as aggregates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Kept {
    held_back: usize,
    captured: usize,
}

impl Kept {
    pub fn count(self) {
        counter!("tributary_agent_not_forwarded_readings_total").increment(self.held_back as u64);
        counter!("tributary_agent_captured_readings_total").increment(self.captured as u64);
    }
}

/// A message out of the log, some of whose readings are captured.
struct Taken {
    origin: Origin,
    kind: u8,
    bytes: Vec<u8>,
}

/// Messages of one capture.
#[derive(Default)]
struct LookedBack {
    messages: Vec<Taken>,
    readings: usize,
    bytes: usize,
}

/// The event times that a capture is for, and of whom.
struct Asked<'a> {
    device: &'a str,
    times: &'a [(i64, i64)],
}

/// What this life forwards holds from `at` on; gives the bytes of the log until the first
/// checkpoint, and whether something else held. What is known may not be the newest: then nobody
/// knows by what it was sealed up to there.
pub(super) fn begin(
    captures: &mut Captures,
    config: &SealConfig,
    (at, is_newest): (Option<Origin>, bool),
) -> (u64, bool) {
    let are_others = captures.hold_under(config.forward.fingerprint(), at);
    if let Some(at) = at.filter(|_| !is_newest) {
        captures.raise_floor(at);
    }
    // Without one at once, captures of the next life would look back no further than its start.
    let due = match are_others && config.forward.rules().ring_bytes() > 0 {
        true => 0,
        false => CHECKPOINT_WAL_BYTES.min(config.checkpoint_bytes_max),
    };
    (due, are_others)
}

impl Stores {
    /// Before which record no checkpoint needed the log.
    pub fn needed(&self) -> Option<Origin> {
        let valid = self.checkpoints.valid().into_iter();
        let mut good = valid.filter_map(|held| Checkpoint::read(&held.body).ok());
        good.next()?.needed
    }
}

impl SealStage {
    /// Lets go of the readings at hand of a message, if they are to be sealed: of what was judged,
    /// whether it is covered or not, since captures have to know of it.
    pub(super) fn kept(
        &mut self,
        (lane, how): (Lane, How),
        (origin, received): (Origin, i64),
        judged: &Judged,
    ) -> Kept {
        self.note_for_captures(origin, received, (how, judged));
        // A dead letter was not judged when it came: no window has it.
        match (how, judged) {
            (How::PutBack, _) | (_, Judged::Repeat(_)) => Kept::default(),
            _ => self.keep_forwarded(lane, (origin, received), how == How::Published),
        }
    }

    /// Lets go of the readings at hand that leave as aggregates alone, unless they are captured;
    /// `notes` that their message may be asked for.
    pub(super) fn keep_forwarded(
        &mut self,
        lane: Lane,
        (origin, received): (Origin, i64),
        notes: bool,
    ) -> Kept {
        let Self {
            rows,
            forward,
            captures,
            ..
        } = self;
        let mut captured = 0;
        if lane != Lane::Telemetry || forward.is_all() {
            return Kept::default();
        }
        let held_back = rows.retain(|reading| match forward.leaves(reading) {
            Leaves::Raw => true,
            Leaves::Aggregates => false,
            Leaves::OnAnomaly => {
                let event = reading.meta.event_time;
                let takes = captures.take(reading.device, event, (origin, received));
                captured += usize::from(takes);
                if notes && !takes {
                    captures.index.note(reading.device, origin);
                }
                takes
            }
        });
        Kept {
            held_back,
            captured,
        }
    }

    /// Notes what a capture has to know of a message, whether it is covered or not.
    fn note_for_captures(&mut self, origin: Origin, received: i64, (how, judged): (How, &Judged)) {
        if self.forward.rules().ring_bytes() == 0 || how != How::Published {
            return;
        }
        self.captures.index.begin(origin);
        self.captures.pass(received);
        self.index_from_now(origin, received);
        match judged {
            Judged::Repeat(_) => self.captures.set_apart(origin),
            Judged::MaybeRepeat => self.captures.doubt(origin),
            Judged::New => {}
        }
        // A dead letter may be put back, and gives all that it has then.
        if self.found.holds(origin) {
            self.captures.set_apart(origin);
        }
    }

    /// A record asks for readings.
    pub(super) fn capture(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        covered: bool,
        now: Now,
    ) -> Result<(), StageError> {
        let Some(record) = CaptureRecord::read(bytes) else {
            self.pass(origin, covered, now)?;
            if !covered {
                let reason = "a record of a capture can't be understood";
                self.bury_record(origin, bytes, reason, now)?;
            }
            return Ok(());
        };
        if !self.are_ours() || !self.forward.rules().captures(record.device) {
            return self.pass(origin, covered, now);
        }
        let settings = *self.forward.rules().capture();
        let length_us = settings.pre_us + settings.post_us + 1;
        let added = self.captures.add(&record, origin, length_us);
        if covered {
            // It is sealed, with what it asked for.
            self.captures.sealed(Origin {
                number: origin.number + 1,
                ..origin
            });
            return Ok(());
        }
        counter!("tributary_agent_captures_total").increment(u64::from(record.is_last));
        if added.refused {
            count_missed("room", 1);
        }
        let asked = Asked {
            device: record.device,
            times: &added.new,
        };
        let found = match added.new.is_empty() {
            true => LookedBack::default(),
            false => self.look_back(&record, &asked, origin),
        };
        if self
            .lanes
            .must_seal_before(Lane::Telemetry, origin, found.readings, 0)
        {
            self.seal(now)?;
        }
        let count = self.take_captured(origin, found, &asked, now);
        counter!("tributary_agent_captured_readings_total").increment(count as u64);
        counter!("tributary_agent_readings_total").increment(count as u64);
        self.lanes.pass(origin);
        Ok(())
    }

    /// Seals what a record asks for alone; any other entry of the log has nothing.
    pub(super) fn capture_alone(
        &mut self,
        origin: Origin,
        entry: &Entry,
        now: Now,
    ) -> Result<(), StageError> {
        let record = CaptureRecord::read(&entry.bytes);
        let record = record.filter(|_| entry.kind == RecordKind::Capture.code());
        let Some(record) = record else {
            return Ok(());
        };
        let times = self.captures.asked_by(origin);
        let asked = Asked {
            device: record.device,
            times: &times,
        };
        let found = self.look_back(&record, &asked, origin);
        self.take_captured(origin, found, &asked, now);
        if let Err(error) = self.seal_together(Lane::Telemetry, now)? {
            warn!(%error, device = record.device, "a capture can't be sealed");
            count_missed("much", self.lanes.waiting_telemetry());
            self.lanes.give_up(Lane::Telemetry);
        }
        Ok(())
    }

    /// Takes in what was found, in the place of the record that asked for it; how many readings.
    fn take_captured(
        &mut self,
        at: Origin,
        found: LookedBack,
        asked: &Asked<'_>,
        now: Now,
    ) -> usize {
        let mut captured = 0;
        let is_large = found.readings > BATCH_READINGS_TARGET;
        for taken in &found.messages {
            let Some(message) = message_in(taken.kind, &taken.bytes) else {
                continue;
            };
            self.keep_asked(&message, asked);
            let flags = match self.captures.is_doubtful(taken.origin) {
                true => Flags::MAYBE_REPEAT,
                false => Flags::default(),
            };
            if is_large {
                self.lanes.make_room_for(self.rows.len());
            }
            let (readings, count) = (self.rows.iter(), self.rows.len());
            let taking = super::message::taking(&message, flags, now);
            match self.lanes.take(Lane::Telemetry, at, readings, taking) {
                Ok(()) => captured += count,
                Err(error) => {
                    warn!(%error, device = asked.device, "readings are not captured");
                    count_missed("series", count);
                }
            }
        }
        captured
    }

    /// Decodes a message, and keeps only what is asked for.
    fn keep_asked(&mut self, message: &Message<'_>, asked: &Asked<'_>) {
        if message.will || self.decode(message).is_err() {
            self.rows.clear();
        }
        let Self { rows, forward, .. } = self;
        rows.retain(|reading| {
            let event = reading.meta.event_time;
            let mut times = asked.times.iter();
            reading.device == asked.device
                && times.any(|(from, to)| (*from..*to).contains(&event))
                && forward.leaves(reading) == Leaves::OnAnomaly
        });
    }

    /// Looks for what is asked for among the messages before `at`.
    fn look_back(
        &mut self,
        record: &CaptureRecord<'_>,
        asked: &Asked<'_>,
        at: Origin,
    ) -> LookedBack {
        let mut found = LookedBack::default();
        let Some(from) = self.look_from(record.received_from()) else {
            return found;
        };
        let from = self.index_from(from, at);
        let (mut read, mut unreadable) = (ReadBack::default(), 0);
        for origin in self.captures.index.of(asked.device, from, at) {
            if !self.captures.may_take(origin) {
                continue;
            }
            let Some(entry) = read.entry(&self.wal, origin) else {
                unreadable += 1;
                continue;
            };
            let Some(message) = message_in(entry.kind, &entry.bytes) else {
                continue;
            };
            self.keep_asked(&message, asked);
            if self.rows.is_empty() {
                continue;
            }
            found.readings += self.rows.len();
            found.bytes += entry.bytes.len();
            if found.readings > CAPTURE_READINGS_MAX || found.bytes > CAPTURE_MESSAGES_BYTES_MAX {
                found.readings -= self.rows.len();
                warn!(device = asked.device, "a capture is too large: cut");
                count_missed("much", 1);
                break;
            }
            found.messages.push(Taken {
                origin,
                kind: entry.kind,
                bytes: entry.bytes.to_vec(),
            });
        }
        if unreadable > 0 {
            warn!(
                unreadable,
                device = asked.device,
                "messages of a capture can't be read back"
            );
            count_missed("unreadable", unreadable);
        }
        found
    }

    /// Whether a segment of the log is only kept for captures.
    pub(super) fn is_ring(&self, segment: &SegmentInfo) -> bool {
        let end = Origin {
            buffer: BufferId(segment.life.0),
            number: segment.end,
        };
        self.needed.is_some_and(|needed| end <= needed)
    }

    /// What captures know, without what the log holds nothing of any more, and the first record
    /// that it holds.
    pub(super) fn captures_kept(&self) -> (Option<Origin>, Captures) {
        let first = self.wal.segments().first().map(first_of);
        let held = self.wal.lives();
        let from = first.or(self.position).unwrap_or(Origin {
            buffer: BufferId([0; 16]),
            number: 0,
        });
        (first, self.captures.without(from, &held))
    }

    /// Lets go of the log as far as no checkpoint needs it, and there is more than is kept for
    /// captures.
    pub(super) fn trim_ring(&self) -> Result<(), LogError> {
        let Some(needed) = self.needed else {
            return Ok(());
        };
        let most = self.forward.rules().ring_bytes();
        let mut bytes = 0;
        let mut below = needed;
        if most > 0 && !self.wal.is_short() {
            let segments = self.wal.segments();
            for segment in segments
                .iter()
                .rev()
                .filter(|segment| self.is_ring(segment))
            {
                if bytes + segment.bytes > most {
                    break;
                }
                bytes += segment.bytes;
                below = below.min(first_of(segment));
            }
        }
        gauge!("tributary_agent_capture_ring_bytes").set(bytes as f64);
        self.trim_wal(below)
    }

    /// The disk is full, or the log: what is only kept for captures goes.
    pub(super) fn release_ring(&self) {
        let Some(needed) = self.needed else {
            return;
        };
        let segments = self.wal.segments();
        if !segments.iter().any(|segment| self.is_ring(segment)) {
            return;
        }
        warn!("what the log keeps for captures goes: there is no room on the disk");
        counter!("tributary_agent_capture_ring_released_total").increment(1);
        if let Err(error) = self.trim_wal(needed) {
            warn!(%error, "the log can't be trimmed");
        }
    }
}

pub(super) fn first_of(segment: &SegmentInfo) -> Origin {
    Origin {
        buffer: BufferId(segment.life.0),
        number: segment.first,
    }
}
