//! What the judging stage decides, told records and the time: what is published, what the sealing
//! stage is given, when a checkpoint is due, and what the log is asked to say. It waits for
//! nothing and has no clock; whoever drives it takes what it says behind each record.

use super::super::replay;
use super::ticking::{Due, Ticking};
use crate::alert::AlertState;
use crate::judge::{Judge, KernelClock, Said, What, time_record};
use crate::seal::{Asks, FromJudge, Now, Origin, SealConfig, Stores};
use crate::source::hub::Keep;
use crate::wal::{Batch, Queue, RecordKind, Replay, Replayed};
use bytes::Bytes;
use metrics::counter;
use std::collections::BTreeMap;
use tributary_journal::LogError;
use tributary_protocol::ids::Lane;

/// Something to publish.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Published {
    pub topic: String,
    pub json: Bytes,
    pub keep: Keep,
    /// Of an alert of this life: when its reading was received.
    pub received: Option<i64>,
}

/// See the module.
pub(crate) struct JudgingCore {
    judge: Judge,
    replay: Replay,
    /// Of which messages it is stored what was said, lane by lane.
    covered: BTreeMap<Lane, Origin>,
    asks: Asks,
    checkpoint_bytes_max: u64,
    /// The next record of this life's log.
    origin: Origin,
    /// Bytes since the last checkpoint.
    bytes_since: u64,
    ticking: Ticking,
    /// What was said with the record that was judged last; nothing once it is told.
    said: Vec<Said>,
    published: Vec<Published>,
    told: Vec<FromJudge>,
}

impl JudgingCore {
    /// The stage as it was, in a life that begins with what `kernel` says of its clock; `None`
    /// where nothing is judged. [Replay](Self::replay_step) the log before anything else, and then
    /// [begin](Self::begin).
    pub fn new(
        judge: Option<Judge>,
        kernel: KernelClock,
        stores: &Stores,
        config: &SealConfig,
    ) -> Option<Self> {
        let mut judge = judge?;
        judge.forward_by(config.forward.rules());
        // What no checkpoint needs is kept for captures, and was judged.
        let from = judge.position().or_else(|| stores.needed());
        Some(Self {
            replay: replay(&stores.wal, from),
            judge,
            covered: stores.covered.all(),
            asks: stores.judged.as_ref()?.asks(),
            checkpoint_bytes_max: config.checkpoint_bytes_max,
            origin: Origin {
                buffer: config.present,
                number: 0,
            },
            bytes_since: 0,
            ticking: Ticking::new(kernel),
            said: Vec::new(),
            published: Vec::new(),
            told: Vec::new(),
        })
    }

    /// What is known of all series.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Judges the next record of what the log held before this life; `false` where there is none.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn replay_step(&mut self, now: Now) -> Result<bool, LogError> {
        let judged = self.judge_replayed(now)?;
        self.tell(false);
        Ok(judged.is_some())
    }

    pub(crate) fn judge_replayed(&mut self, now: Now) -> Result<Option<Replayed>, LogError> {
        let step = self.replay.next_step()?;
        if let Some(step) = &step {
            self.judge.replayed(step, now.wall, &mut self.said);
        }
        Ok(step)
    }

    /// The log is replayed: says what stands, and begins to judge what comes.
    pub fn begin(&mut self, now: Now) {
        let judge = &self.judge;
        let over = judge.over().map(|(topic, json)| (topic, json, Keep::Over));
        let standing = judge.standing();
        let standing = standing.map(|(topic, json)| (topic, json, Keep::Stands));
        let all = over.chain(standing).map(|(topic, json, keep)| Published {
            topic: topic.into(),
            json: Bytes::copy_from_slice(json.as_bytes()),
            keep,
            received: None,
        });
        self.published.extend(all);
        self.ticking.begin(now.monotonic);
    }

    /// Judges the next record that was handed to the log.
    pub fn record(&mut self, kind: u8, bytes: &[u8], now: Now) {
        self.judge_record(kind, bytes, now);
        self.tell(true);
    }

    pub(crate) fn judge_record(&mut self, kind: u8, bytes: &[u8], now: Now) {
        let said = &mut self.said;
        self.judge.record(self.origin, kind, bytes, now.wall, said);
        let is_tick = kind == RecordKind::Tick.code();
        self.ticking.heard(is_tick, now.monotonic);
        self.origin.number += 1;
        self.bytes_since += bytes.len() as u64;
    }

    /// Whether something is to be [published](Self::published) or [taken](Self::take).
    pub fn has_told(&self) -> bool {
        !self.published.is_empty() || !self.told.is_empty()
    }

    /// What is to be published since this was asked last.
    pub fn published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.published)
    }

    /// What the sealing stage is to be given since this was asked last, in the order of the log.
    pub fn take(&mut self) -> Vec<FromJudge> {
        std::mem::take(&mut self.told)
    }

    /// When it is to be [polled](Self::poll) next, if nothing comes before: µs on the clock of
    /// `now`.
    pub fn poll_timeout(&mut self, now: Now) -> i64 {
        let due = self.due();
        let wait = self.ticking.wait(due, now.monotonic);
        now.monotonic.saturating_add(wait)
    }

    /// Does what is due: has the log ask for captures, and say that time has passed. Whether a
    /// [checkpoint](Self::checkpoint) is.
    #[must_use = "the log is kept until there is one"]
    pub fn poll(&mut self, now: Now, queue: &Queue, kernel: impl FnOnce() -> KernelClock) -> bool {
        self.ask(queue);
        self.tick(now, queue, kernel);
        let most = self.checkpoint_bytes_max;
        self.asks.is_wanted(self.bytes_since, most)
    }

    fn due(&mut self) -> Due {
        Due {
            at: self.judge.poll_timeout(),
            received: self.judge.received(),
        }
    }

    /// Has the log say that time has passed. While storage takes nothing, room is for messages.
    fn tick(&mut self, now: Now, queue: &Queue, kernel: impl FnOnce() -> KernelClock) {
        self.ticking.ask(now.monotonic, kernel);
        let due = self.due();
        let Some(kernel) = self.ticking.poll(due, now.monotonic) else {
            return;
        };
        let tick = time_record(RecordKind::Tick, now.wall, kernel);
        if let Some(room) = queue.try_room(tick.len_bytes()) {
            queue.push(tick, room);
            self.ticking.told(kernel);
        }
    }

    /// Has the log ask for captures. Where it has no room just now, they are asked for later.
    fn ask(&mut self, queue: &Queue) {
        while let Some(records) = self.judge.wanted() {
            let mut batch = Batch::new();
            for bytes in &records {
                batch.control(RecordKind::Capture, bytes);
            }
            let Some(room) = queue.try_room(batch.len_bytes()) else {
                return;
            };
            queue.push(batch, room);
            self.judge.asked();
        }
    }

    /// Has the sealing stage keep what is known, if anything is.
    pub fn checkpoint(&mut self) {
        self.bytes_since = 0;
        if let Some(known) = self.judge.known() {
            self.asks.answered();
            self.told.push(FromJudge::Checkpoint(known));
        }
    }

    /// The quota of the log with which checkpoints would have their share and no more, where they
    /// have a larger one.
    pub fn quota_for_share(&self) -> Option<u64> {
        self.asks.quota_for_share(self.checkpoint_bytes_max)
    }

    /// Publishes what was said, and hands it on; in a replay only what is not stored yet.
    pub(crate) fn tell(&mut self, is_live: bool) {
        let mut at = None;
        let (mut alerts, mut aggregates) = (Vec::new(), Vec::new());
        let Self {
            covered,
            said,
            published,
            ..
        } = self;
        let mut publish = |topic, json: &str, keep, received| {
            published.push(Published {
                topic,
                json: Bytes::copy_from_slice(json.as_bytes()),
                keep,
                received,
            });
        };
        for Said {
            origin,
            topic,
            what,
        } in said.drain(..)
        {
            let lane = lane_of(&what);
            let covered = covered.get(&lane);
            if !is_live && covered.is_some_and(|covered| origin < *covered) {
                continue;
            }
            let is_alert = lane == Lane::Alerts;
            let spoken = match what {
                What::Alert(spoken) | What::Aggregate(spoken) => spoken,
                What::Again(json) => {
                    publish(topic, &json, Keep::Stands, None);
                    continue;
                }
                What::Forgotten => {
                    publish(topic, "", Keep::Over, None);
                    continue;
                }
            };
            let keep = match spoken.state {
                _ if !spoken.is_present || spoken.is_passing => Keep::Not,
                AlertState::Cleared => Keep::Over,
                AlertState::Raised | AlertState::Acknowledged => Keep::Stands,
            };
            let received = (is_live && is_alert).then_some(spoken.meta.received_time);
            publish(topic, &spoken.json, keep, received);
            at = Some(origin);
            match is_alert {
                true => alerts.push(spoken),
                false => aggregates.push(spoken),
            }
        }
        let Some(origin) = at else { return };
        counter!("tributary_agent_aggregates_total").increment(aggregates.len() as u64);
        self.told.push(FromJudge::Said {
            origin,
            alerts,
            aggregates,
        });
    }

    /// For a test that has more said with a record than its judge says.
    #[cfg(test)]
    pub(crate) fn said(&mut self) -> &mut Vec<Said> {
        &mut self.said
    }
}

/// The lane that it stands in, or goes along with.
fn lane_of(what: &What) -> Lane {
    match what {
        What::Alert(_) | What::Again(_) | What::Forgotten => Lane::Alerts,
        What::Aggregate(_) => Lane::Aggregates,
    }
}
