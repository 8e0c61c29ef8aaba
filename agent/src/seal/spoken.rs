//! The lanes `alerts` and `aggregates`: what the judging stage said about messages, in batches of
//! its own, once the messages are durable. Apart from the other lanes, and from each other: alerts
//! are sealed at once and aggregates by age, and what a lane covers says only of which messages
//! what was said is in it.
//!
//! Pure: told what was said and how far the log is durable, it says when it is due.

use super::{Inline, Now, Origin};
use crate::decode::Reading;
use crate::judge::{Known, Spoken};
use crate::limits::{
    AGGREGATES_SEAL_US, JUDGED_CHECKPOINTS_MAX, JUDGED_SEAL_US, JUDGED_WAITING_BYTES_MAX,
    JUDGED_WAITING_MAX,
};
use metrics::counter;
use std::collections::VecDeque;
use tracing::{error, warn};
use tributary_journal::limits::FRAME_BYTES_MAX;
use tributary_protocol::batch::{Cover, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane};
use tributary_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_COVERS_MAX, BATCH_READINGS_TARGET, BATCH_TEXT_TARGET_BYTES,
    SERIES_PER_BATCH_MAX,
};
use tributary_protocol::reading::{Readings, Value};

/// Batches of one message beside the last, and that one, stand in one frame of the spool.
pub(super) const GROUP_BYTES_MAX: usize = FRAME_BYTES_MAX - BATCH_BYTES_MAX - 1_024;

/// What comes from the judging stage, in the order of the log.
#[derive(Debug)]
pub enum FromJudge {
    /// What it said with a message.
    Said {
        /// The message.
        origin: Origin,
        /// Its alerts.
        alerts: Vec<Spoken>,
        /// The windows that closed with it.
        aggregates: Vec<Spoken>,
    },
    /// What it knows by then.
    Checkpoint(Known),
}

/// Both lanes, and the judging stage's checkpoints, which wait for them.
pub(super) struct SpokenLanes {
    alerts: SpokenLane,
    aggregates: SpokenLane,
    checkpoints: VecDeque<Known>,
}

impl SpokenLanes {
    /// The lanes of the life `present`; an earlier one covered everything before `covered` says.
    pub fn new(present: BufferId, covered: impl Fn(Lane) -> Option<Origin>) -> Self {
        let lane = |lane, hold_us| SpokenLane::new(present, (lane, hold_us), covered(lane));
        Self {
            alerts: lane(Lane::Alerts, 0),
            aggregates: lane(Lane::Aggregates, AGGREGATES_SEAL_US),
            checkpoints: VecDeque::new(),
        }
    }

    /// Whether there is room for more.
    pub fn takes(&self) -> bool {
        self.checkpoints.len() < JUDGED_CHECKPOINTS_MAX
            && self.alerts.takes()
            && self.aggregates.takes()
    }

    /// Takes what comes.
    pub fn take(&mut self, from: FromJudge, now: Now) {
        match from {
            FromJudge::Said {
                origin,
                alerts,
                aggregates,
            } => {
                self.alerts.take(origin, alerts, now);
                self.aggregates.take(origin, aggregates, now);
            }
            FromJudge::Checkpoint(known) => self.checkpoints.push_back(known),
        }
    }

    /// When a lane has to be sealed that may be, and which: the log is durable up to `durable`.
    pub fn poll_timeout(&self, durable: Option<Origin>) -> Option<(i64, Lane)> {
        let durable = durable?;
        // What a checkpoint waits for is not held back.
        let next = self.checkpoints.front().map(|known| known.at);
        let wanted = next.filter(|at| *at <= durable);
        let lanes = [&self.alerts, &self.aggregates].into_iter();
        let due = lanes.filter_map(|lane| Some((lane.due(durable, wanted)?, lane.lane)));
        due.min_by_key(|(at, _)| *at)
    }

    /// The checkpoint that comes next, if everything before it is durable, and sealed.
    pub fn checkpoint(&mut self, durable: Option<Origin>) -> Option<Known> {
        let Self {
            alerts, aggregates, ..
        } = self;
        self.checkpoints.pop_front_if(|Known { at, .. }| {
            durable.is_some_and(|durable| *at <= durable)
                && !alerts.holds_before(*at)
                && !aggregates.holds_before(*at)
        })
    }

    /// Seals what a lane holds of durable messages, as much as stands together; gives the batches,
    /// to be stored all or none of them, and the first message that they do not cover.
    pub fn seal(
        &mut self,
        lane: Lane,
        durable: Origin,
        now: Now,
    ) -> Option<(Vec<SealedBatch>, Origin)> {
        match lane {
            Lane::Aggregates => self.aggregates.seal(durable, now),
            _ => self.alerts.seal(durable, now),
        }
    }
}

/// One of them.
struct SpokenLane {
    present: BufferId,
    lane: Lane,
    /// How long the first may wait for others, microseconds.
    hold_us: i64,
    waiting: VecDeque<(Origin, Vec<Spoken>)>,
    waiting_bytes: usize,
    readings: Readings,
    inline: Inline,
    /// The first message of which nothing is in the lane.
    covered: Option<Origin>,
    next: u64,
    /// When the oldest that waits came, and when it was sealed last, on the monotonic clock.
    since: Option<i64>,
    sealed_at: Option<i64>,
    sealer: Sealer,
}

impl SpokenLane {
    fn new(present: BufferId, (lane, hold_us): (Lane, i64), covered: Option<Origin>) -> Self {
        Self {
            present,
            lane,
            hold_us,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            readings: Readings::new(),
            inline: Inline::default(),
            covered,
            next: 0,
            since: None,
            sealed_at: None,
            sealer: Sealer::new(),
        }
    }

    fn takes(&self) -> bool {
        self.waiting.len() < JUDGED_WAITING_MAX && self.waiting_bytes < JUDGED_WAITING_BYTES_MAX
    }

    fn take(&mut self, origin: Origin, spoken: Vec<Spoken>, now: Now) {
        if spoken.is_empty() {
            return;
        }
        self.waiting_bytes += text_bytes(&spoken);
        self.waiting.push_back((origin, spoken));
        self.since.get_or_insert(now.monotonic);
    }

    fn holds_before(&self, at: Origin) -> bool {
        self.waiting.front().is_some_and(|(origin, _)| *origin < at)
    }

    /// Whether it is not held back any longer: half of what may wait does.
    fn is_full(&self) -> bool {
        self.waiting.len() >= JUDGED_WAITING_MAX / 2
            || self.waiting_bytes >= BATCH_TEXT_TARGET_BYTES
    }

    /// When it is due, if it holds something that may be sealed; `wanted` is a place before which
    /// nothing is held back.
    fn due(&self, durable: Origin, wanted: Option<Origin>) -> Option<i64> {
        if !self.holds_before(durable) {
            return None;
        }
        let is_wanted = wanted.is_some_and(|at| self.holds_before(at));
        let held_to = match self.since {
            Some(since) if !is_wanted && !self.is_full() => since.saturating_add(self.hold_us),
            _ => i64::MIN,
        };
        let last = self.sealed_at.unwrap_or(i64::MIN);
        Some(held_to.max(last.saturating_add(JUDGED_SEAL_US)))
    }

    fn seal(&mut self, durable: Origin, now: Now) -> Option<(Vec<SealedBatch>, Origin)> {
        let mut covers: Vec<Cover> = Vec::new();
        let (mut rows, mut bytes, mut end) = (0, 0, None);
        let mut apart = Vec::new();
        while let Some((origin, spoken)) = self.waiting.front() {
            rows += spoken.len();
            bytes += text_bytes(spoken);
            let is_full = rows > BATCH_READINGS_TARGET
                || bytes > BATCH_TEXT_TARGET_BYTES
                || self.inline.all.len() + spoken.len() > SERIES_PER_BATCH_MAX
                || !has_room(&covers, origin.buffer);
            if *origin >= durable || (is_full && end.is_some()) {
                break;
            }
            let Some((origin, spoken)) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= text_bytes(&spoken);
            cover(&mut covers, self.covered, origin);
            end = Some(Origin {
                number: origin.number + 1,
                ..origin
            });
            if is_full {
                apart = spoken;
                break;
            }
            spoken.iter().for_each(|one| self.push(one));
        }
        let end = end?;
        self.covered = Some(end);
        self.sealed_at = Some(now.monotonic);
        self.since = (!self.waiting.is_empty()).then_some(now.monotonic);
        let mut batches = Vec::new();
        self.seal_apart(&apart, (&covers, now), &mut batches);
        self.seal_pushed((&covers, now), &mut batches);
        Some((batches, end))
    }

    /// What was said with a message that fits no batch is sealed in several.
    fn seal_apart(
        &mut self,
        spoken: &[Spoken],
        of: (&[Cover], Now),
        batches: &mut Vec<SealedBatch>,
    ) {
        for (place, one) in spoken.iter().enumerate() {
            let is_full = self.inline.all.len() >= SERIES_PER_BATCH_MAX
                || self.readings.len() >= BATCH_READINGS_TARGET
                || self.readings.text_bytes() + one.json.len() > BATCH_TEXT_TARGET_BYTES;
            if is_full {
                self.seal_pushed(of, batches);
            }
            let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
            if bytes > GROUP_BYTES_MAX {
                let lost = spoken.len() - place;
                error!(lane = %self.lane, lost, "too much with one message: it is not stored");
                self.count_unsealed(lost);
                return;
            }
            self.push(one);
        }
    }

    fn seal_pushed(&mut self, (covers, now): (&[Cover], Now), batches: &mut Vec<SealedBatch>) {
        if self.readings.is_empty() {
            return;
        }
        let spec = Spec {
            key: BatchKey {
                buffer: self.present,
                lane: self.lane,
                number: self.next,
            },
            sealed_at: now.wall,
            series_needed: 0,
            covers: covers.to_vec(),
        };
        let Self {
            sealer,
            inline,
            readings,
            ..
        } = self;
        match sealer.named(&spec, &inline.all, readings) {
            Ok(batch) => {
                self.next += 1;
                batches.push(batch);
            }
            Err(error) => {
                let lost = self.readings.len();
                error!(%error, lane = %self.lane, lost, "what was said can't be sealed");
                self.count_unsealed(lost);
            }
        }
        self.readings.clear();
        self.inline.truncate(0);
    }

    fn push(&mut self, spoken: &Spoken) {
        let reading = Reading {
            device: &spoken.device,
            metric: &spoken.metric,
            unit: "",
            meta: spoken.meta,
            value: Value::Str(&spoken.json),
        };
        let series = self.inline.series(&reading);
        let pushed = series
            .and_then(|series| Ok(self.readings.push(series, reading.meta, reading.value)?));
        if let Err(error) = pushed {
            let Spoken { device, metric, .. } = spoken;
            warn!(%error, lane = %self.lane, device, metric, "what was said is not stored");
            self.count_unsealed(1);
        }
    }

    fn count_unsealed(&self, count: usize) {
        let lane = self.lane.name();
        counter!("tributary_agent_unsealed_total", "lane" => lane).increment(count as u64);
    }
}

fn text_bytes(spoken: &[Spoken]) -> usize {
    spoken.iter().map(|one| one.json.len()).sum()
}

fn has_room(covers: &[Cover], buffer: BufferId) -> bool {
    covers.len() < BATCH_COVERS_MAX || covers.last().is_some_and(|last| last.buffer == buffer)
}

/// Covers everything up to this message, from what was covered on.
fn cover(covers: &mut Vec<Cover>, before: Option<Origin>, origin: Origin) {
    let Origin { buffer, number } = origin;
    match covers.last_mut() {
        Some(cover) if cover.buffer == buffer => cover.count = number + 1 - cover.first,
        _ => {
            let before = before.filter(|before| before.buffer == buffer);
            let first = before.map_or(number, |before| before.number.min(number));
            covers.push(Cover {
                buffer,
                first,
                count: number + 1 - first,
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
