//! The judging stage: takes the log's records in their order, before they are durable, and says
//! what is unusual about the readings in them.
//!
//! Everything it knows is a function of the log: a checkpoint and the records after it. Who runs it
//! publishes what it says at once, and has it enter the lane `alerts` once its message is durable.
//! It has marks of its own, since it is ahead of what is durable and the sealing stage is not; and
//! it reads no clock: the time is that of the records.

mod counts;
mod idle;
mod kept;
mod kernel;
mod names;
mod number_texts;
mod readings;
mod recent;
mod watched;

mod incidents;
mod later;
mod over;
mod standing;
mod storm;
mod turns;

mod units;

mod fast;
mod giving_way;
mod series;
mod tell;

mod checkpoint;
mod packed;
mod rejudge;
mod watching;

pub use checkpoint::CheckpointError;
pub use counts::{Counts, Raised};
pub use idle::IdleRows;
pub(crate) use kept::{read_text, write_text};
pub use kernel::KernelClock;
pub use number_texts::NumberText;
pub use packed::Known;
pub use recent::KEPT as AROUND;
pub use rejudge::{Detection, Rejudge};
pub use standing::{AllStood, Found, Stands, StandsWalk};
pub use watching::{
    Configured, ConfiguredKind, JudgedBy, Survey, SuspectClock, Unwatched, WatchedSeries, Watchers,
    WatchersOut, Watching,
};

use crate::alert::{Alert, AlertId, AlertKind, AlertState};
use crate::capture::CaptureRecord;
use crate::configuration::{Announcement, Configurations};
use crate::decode::{DeadLetter, Decoded, Incoming, Rows};
use crate::detect::Settings;
use crate::forward::{Forward, ForwardRules};
use crate::marks::{Evidence, Judged, Marks};
use crate::seal::Origin;
use crate::wal::{Batch, Message, Queue, Record, RecordKind, Replayed};
use metrics::counter;
use series::Series;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tell::Moment;
use tracing::error;
use tributary_protocol::ids::BufferId;
use tributary_protocol::reading::Meta;

/// Something that is to be told.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    /// The message that it is about, or that it came with.
    pub origin: Origin,
    /// The topic that it is published to.
    pub topic: String,
    /// What it is.
    pub what: What,
}

/// What is told.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// An alert begins or is over.
    Alert(Spoken),
    /// An alert that stood all the while is the present state again: its JSON, to be published and
    /// not stored.
    Again(String),
    /// A window of a series closed.
    Aggregate(Spoken),
    /// The series is not watched any more, and its state is not known.
    Forgotten,
}

/// An alert with what its lane says about its reading.
#[derive(Clone, PartialEq, Debug)]
pub struct Spoken {
    /// What publishes.
    pub device: String,
    /// What is measured.
    pub metric: String,
    /// The reading's times, number and flags.
    pub meta: Meta,
    /// How the alert stands.
    pub state: AlertState,
    /// Whether it is the present state of its topic: not where that follows at once.
    pub is_present: bool,
    /// Whether it tells of a moment and stands nowhere: a summary.
    pub is_passing: bool,
    /// The alert as JSON.
    pub json: String,
}

impl Spoken {
    fn new(alert: &Alert, meta: Meta, is_present: bool) -> Self {
        Self {
            device: alert.device.clone(),
            metric: alert.metric.clone(),
            meta,
            state: alert.state,
            is_present,
            is_passing: alert.kind == AlertKind::Summary,
            json: alert.json(),
        }
    }
}

/// The stage; see the module.
pub struct Judge {
    marks: Marks,
    rows: Rows,
    configurations: Configurations,
    series: Series,
    /// Whether the log has said by which settings; before that, nothing is judged.
    configured: bool,
    /// The time that the log has come to.
    received: i64,
    position: Option<Origin>,
    /// Bytes of what was known last: as much room the next one takes at once.
    last_bytes: AtomicUsize,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

const VERSION: u8 = 1;
/// Of records that tell the time.
const TIME_VERSION: u8 = 2;

/// Has the log say that readings are judged by these settings from here on; whether there was room.
///
/// A record of the kind `detection`:
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 1 |
/// | 1 | | the settings' text |
pub fn announce(queue: &Queue, settings: &Settings) -> bool {
    push(queue, settings_record(settings))
}

fn settings_record(settings: &Settings) -> Batch {
    let mut batch = Batch::new();
    let text = settings.text();
    let bytes = [&[VERSION], text.as_bytes()].concat();
    batch.control(RecordKind::Detection, &bytes);
    batch
}

/// Has the log say that the agent begins to run. Call it once in a life, behind the settings.
pub fn begin(queue: &Queue, now: i64, kernel: KernelClock) {
    // Without room, which there is before any message, rules only take the pause for silence.
    push(queue, time_record(RecordKind::Clock, now, kernel));
}

fn push(queue: &Queue, batch: Batch) -> bool {
    let room = queue.try_room(batch.len_bytes());
    room.map(|room| queue.push(batch, room)).is_some()
}

/// A record of the kind `tick`. One of the kind `clock` holds the same, and stands where the agent
/// began to run.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 2; one of version 1 ends behind the time |
/// | 1 | 8 | the time: µs since 1970, UTC |
/// | 9 | 1 | what the kernel says of it: 0 nothing, 1 not synchronised, 2 synchronised |
/// | 10 | 8 | names the boot; 0: not known |
pub fn time_record(kind: RecordKind, time: i64, kernel: KernelClock) -> Batch {
    let mut batch = Batch::new();
    let mut bytes = vec![TIME_VERSION];
    bytes.extend(time.to_le_bytes());
    kernel.write(&mut bytes);
    batch.control(kind, &bytes);
    batch
}

/// A record of the kind `acknowledged`: version 1 (1 byte), the time (8, µs since 1970, UTC), then
/// the alert's id (16).
pub fn acknowledged_record(time: i64, id: AlertId) -> Batch {
    let mut batch = Batch::new();
    let bytes = [&[VERSION][..], &time.to_le_bytes(), &id.0].concat();
    batch.control(RecordKind::Acknowledged, &bytes);
    batch
}

fn acknowledged(bytes: &[u8]) -> Option<(i64, AlertId)> {
    let (time, id) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
    Some((i64::from_le_bytes(*time), AlertId(*id.first_chunk()?)))
}

/// The time, and what the kernel says of it.
fn time_of(bytes: &[u8]) -> Option<(i64, KernelClock)> {
    let (version, rest) = bytes.split_first()?;
    let (time, mut rest) = rest.split_first_chunk()?;
    let kernel = match *version {
        VERSION => KernelClock::default(),
        TIME_VERSION => KernelClock::read(&mut rest)?,
        _ => return None,
    };
    Some((i64::from_le_bytes(*time), kernel))
}

impl Judge {
    /// The stage that has seen nothing, on the gateway whose storage is `storage`.
    pub fn new(storage: &[u8], configurations: Configurations) -> Self {
        Self {
            marks: Marks::new(),
            rows: Rows::new(),
            configurations,
            series: Series::new(storage, Settings::default()),
            configured: false,
            received: 0,
            position: None,
            last_bytes: AtomicUsize::new(0),
        }
    }

    /// Keeps what is known of series that give way in this store from here on. Without one they are
    /// forgotten.
    pub fn keeping(mut self, rows: Box<dyn IdleRows>) -> Self {
        self.series.rows = Some(rows);
        self
    }

    /// How many series gave way and are known again when they speak.
    pub fn idle_len(&self) -> usize {
        self.series.idle.len()
    }

    /// The rows of series that gave way, by number, in order, and the number of the next one: a
    /// store has no others.
    pub fn idle(&self) -> (Vec<u64>, u64) {
        let idle = &self.series.idle;
        (idle.numbers().collect(), idle.next())
    }

    /// Where the replay begins; `None`: at the log's first record.
    pub fn position(&self) -> Option<Origin> {
        self.position
    }

    /// What was passed over or not told, since the start.
    pub fn counts(&self) -> Counts {
        self.series.counts()
    }

    /// How many series are watched.
    pub fn watched(&self) -> usize {
        self.series.len()
    }

    /// How many of them are judged on windows of a second.
    pub fn fast(&self) -> usize {
        self.series.fast.count()
    }

    /// Whether the gateway's clock is believed.
    pub fn is_clock_trusted(&self) -> bool {
        self.series.times.is_gateway_trusted()
    }

    /// The first series that said numbers as texts, since the start.
    pub fn number_texts(&self) -> &[NumberText] {
        self.series.number_texts.all()
    }

    /// Whether readings are judged.
    pub fn is_enabled(&self) -> bool {
        self.configured && self.series.settings.enabled
    }

    /// The time that the log has come to: µs since 1970, UTC.
    pub fn received(&self) -> i64 {
        self.received
    }

    /// When the stage needs a [tick](time_record) in the log: microseconds since 1970, UTC.
    pub fn poll_timeout(&mut self) -> Option<i64> {
        self.series.poll_timeout()
    }

    /// What topics show on which nothing stands any more: topic and JSON, which is empty where the
    /// series is not watched any more. The newest of them.
    pub fn over(&self) -> impl Iterator<Item = (&str, &str)> {
        self.series.over.iter()
    }

    /// Alerts have readings captured as these rules say, and series whose readings leave as
    /// aggregates alone always have a place.
    pub fn forward_by(&mut self, rules: &Arc<ForwardRules>) {
        self.series.wanted.set_rules(rules);
        self.series.forward = Forward::new(rules, &self.series.settings);
    }

    /// Records of the kind `capture` that the log needs next, side by side.
    pub fn wanted(&self) -> Option<Vec<Vec<u8>>> {
        self.series.wanted.next()
    }

    /// They were handed to the log.
    pub fn asked(&mut self) {
        self.series.wanted.asked();
    }

    /// How many alerts stand.
    pub fn standing_len(&self) -> usize {
        self.series.standings.len()
    }

    /// For each topic the alert that it shows: its topic and its JSON.
    pub fn standing(&self) -> impl Iterator<Item = (&str, &str)> {
        self.series.standing()
    }

    /// Takes in what a replay of the log brings; `now` is the time by the gateway's clock.
    pub fn replayed(&mut self, step: &Replayed, now: i64, said: &mut Vec<Said>) {
        match step {
            Replayed::Record {
                life,
                number,
                kind,
                bytes,
            } => {
                let origin = Origin {
                    buffer: BufferId(life.0),
                    number: *number,
                };
                self.series.is_replay = true;
                self.record(origin, *kind, bytes, now, said);
                self.series.is_replay = false;
            }
            Replayed::Damaged { life, numbers } | Replayed::Missing { life, numbers } => {
                let buffer = BufferId(life.0);
                self.begin_life(buffer, None);
                let number = numbers.end;
                self.position = Some(Origin { buffer, number });
                counter!("tributary_agent_unjudged_messages_total")
                    .increment(numbers.end.saturating_sub(numbers.start));
            }
        }
    }

    /// Takes in one record of the log.
    pub fn record(
        &mut self,
        origin: Origin,
        kind: u8,
        bytes: &[u8],
        now: i64,
        said: &mut Vec<Said>,
    ) {
        self.begin_life(origin.buffer, Some(origin.number));
        self.position = Some(Origin {
            number: origin.number + 1,
            ..origin
        });
        // What can't be understood is a dead letter, which the sealing stage sees to.
        let Ok(record) = Record::parse(kind, bytes) else {
            return;
        };
        match record {
            Record::Message(message) | Record::Refused(message) => {
                self.message(origin, &message, now, said);
            }
            Record::PubRel(release) => self.marks.release(release.session, release.packet_id),
            Record::Session(session) => self.marks.keep(session.session, session.expiry_s),
            Record::Control(RecordKind::Configuration, bytes) => self.configured(origin, bytes),
            Record::Control(RecordKind::Detection, bytes) => {
                self.judge_by(bytes, (origin, now), said);
            }
            Record::Control(RecordKind::Tick, bytes) => {
                if let Some((received, kernel)) = time_of(bytes) {
                    self.series.kernel = self.series.kernel.told(kernel);
                    let moment = self.moment(origin, received, now);
                    self.series.pass(moment, said);
                }
            }
            Record::Control(RecordKind::Clock, bytes) => {
                if let Some((received, kernel)) = time_of(bytes) {
                    self.series.kernel = self.series.kernel.told(kernel);
                    let moment = self.moment(origin, received, now);
                    self.series.resume(moment, said);
                }
            }
            Record::Control(RecordKind::Acknowledged, bytes) => {
                if let Some((received, id)) = acknowledged(bytes) {
                    let moment = self.moment(origin, received, now);
                    self.series.acknowledge(id, moment, said);
                }
            }
            Record::Control(RecordKind::Capture, bytes) => {
                if let Some(record) = CaptureRecord::read(bytes) {
                    self.series.wanted.recorded(&record);
                }
            }
            // What is put back was seen when it came, or is from before; nothing is judged late.
            Record::TooLarge(_) | Record::Control(..) => {}
        }
    }

    fn moment(&mut self, origin: Origin, received: i64, now: i64) -> Moment {
        self.received = received;
        Moment {
            origin,
            received,
            now,
            reading: (0, 0),
            skew: 0,
        }
    }

    fn message(&mut self, origin: Origin, message: &Message<'_>, now: i64, said: &mut Vec<Said>) {
        let decoded = self.decode(message);
        let first = self.rows.iter().next();
        let evidence = Evidence::of(message, decoded.as_ref().ok(), first.as_ref());
        let judged = self.marks.judge(&evidence);
        let is_measured = !message.will && decoded.is_ok() && self.configured;
        if matches!(judged, Judged::Repeat(_)) || !is_measured {
            return;
        }
        let moment = self.moment(origin, message.received_time, now);
        self.series.pass(moment, said);
        for reading in self.rows.iter() {
            self.series.reading(&reading, moment, said);
        }
    }

    fn decode(&mut self, message: &Message<'_>) -> Result<Decoded, DeadLetter> {
        let incoming = Incoming {
            topic: message.topic,
            payload: message.payload,
            properties: message.properties,
            received_time: message.received_time,
        };
        match self.configurations.rules() {
            Some(rules) => rules.decode(&incoming, &mut self.rows),
            None => {
                self.rows.clear();
                Err(DeadLetter::Configuration)
            }
        }
    }

    /// Other decoding rules hold behind this record.
    fn configured(&mut self, origin: Origin, bytes: &[u8]) {
        let named = Announcement::read(bytes).map(|Announcement(hash)| hash);
        if !self.configurations.is_in_force(named) {
            self.configurations.begin(origin, named);
            self.configurations.forget_history();
        }
    }

    /// Other settings of detection hold behind this record.
    fn judge_by(&mut self, bytes: &[u8], (origin, now): (Origin, i64), said: &mut Vec<Said>) {
        let text = bytes.strip_prefix(&[VERSION]).map(str::from_utf8);
        let settings = match text {
            Some(Ok(text)) => Settings::parse(text).map_err(|wrong| {
                let first = wrong.first().map(ToString::to_string);
                first.unwrap_or_default()
            }),
            _ => Err("no text".to_owned()),
        };
        match settings {
            Ok(settings) => {
                self.configured = true;
                let moment = self.moment(origin, self.received, now);
                self.series.judge_by(settings, moment, said);
            }
            Err(error) => {
                error!(
                    error,
                    "the log names settings of detection that can't be understood"
                );
            }
        }
    }

    /// As in the sealing stage: each life begins with a record that names its decoding rules.
    fn begin_life(&mut self, buffer: BufferId, number: Option<u64>) {
        let goes_on = self
            .position
            .is_some_and(|position| position.buffer == buffer);
        if !goes_on && number != Some(0) {
            self.configurations.lose(Origin { buffer, number: 0 });
            self.configurations.forget_history();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
