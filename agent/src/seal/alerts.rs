//! The lane `alerts`: what the judging stage said about messages, in batches of its own, once the
//! messages are durable. Apart from the other lanes: it is sealed sooner, and what it covers says
//! only which messages' alerts are in it.
//!
//! Pure: told what was said and how far the log is durable, it says when it is due.

use super::{Inline, Now, Origin};
use crate::decode::Reading;
use crate::judge::Spoken;
use crate::limits::{ALERTS_SEAL_US, JUDGED_WAITING_MAX};
use metrics::counter;
use std::collections::VecDeque;
use tracing::warn;
use tributary_protocol::batch::{Cover, SealError, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane};
use tributary_protocol::limits::{
    BATCH_COVERS_MAX, BATCH_READINGS_TARGET, BATCH_TEXT_TARGET_BYTES, SERIES_PER_BATCH_MAX,
};
use tributary_protocol::reading::{Readings, Value};

/// What comes from the judging stage, in the order of the log.
#[derive(Debug)]
pub enum FromJudge {
    /// What it said with a message.
    Said {
        /// The message.
        origin: Origin,
        /// Its alerts.
        alerts: Vec<Spoken>,
    },
    /// What it knows, before this record.
    Checkpoint {
        /// The first record that is not in it.
        at: Origin,
        /// Its bytes.
        body: Vec<u8>,
    },
}

/// The lane; see the module.
pub(super) struct AlertLane {
    present: BufferId,
    waiting: VecDeque<FromJudge>,
    readings: Readings,
    inline: Inline,
    /// The first message whose alerts are not in the lane.
    covered: Option<Origin>,
    next: u64,
    /// When it was sealed last, on the monotonic clock.
    sealed_at: Option<i64>,
    sealer: Sealer,
}

impl AlertLane {
    /// The lane of the life `present`; an earlier one covered the alerts of everything before
    /// `covered`.
    pub fn new(present: BufferId, covered: Option<Origin>) -> Self {
        Self {
            present,
            waiting: VecDeque::new(),
            readings: Readings::new(),
            inline: Inline::default(),
            covered,
            next: 0,
            sealed_at: None,
            sealer: Sealer::new(),
        }
    }

    /// Whether there is room for more.
    pub fn takes(&self) -> bool {
        self.waiting.len() < JUDGED_WAITING_MAX
    }

    /// Takes what comes.
    pub fn take(&mut self, from: FromJudge) {
        self.waiting.push_back(from);
    }

    /// When alerts have to be sealed that may be: the log is durable up to `durable`.
    pub fn poll_timeout(&self, durable: Option<Origin>) -> Option<i64> {
        let FromJudge::Said { origin, .. } = self.waiting.front()? else {
            return None;
        };
        let is_durable = durable.is_some_and(|durable| *origin < durable);
        let last = self.sealed_at.unwrap_or(i64::MIN);
        is_durable.then(|| last.saturating_add(ALERTS_SEAL_US))
    }

    /// The checkpoint that comes next, if everything before it is durable.
    pub fn checkpoint(&mut self, durable: Option<Origin>) -> Option<(Origin, Vec<u8>)> {
        let is_due = match self.waiting.front()? {
            FromJudge::Checkpoint { at, .. } => durable.is_some_and(|durable| *at <= durable),
            FromJudge::Said { .. } => false,
        };
        match self.waiting.pop_front_if(|_| is_due)? {
            FromJudge::Checkpoint { at, body } => Some((at, body)),
            FromJudge::Said { .. } => None,
        }
    }

    /// Seals the alerts of durable messages, as many as one batch takes; gives the batch, and the
    /// first message that it does not cover.
    ///
    /// # Errors
    /// When they can't be sealed together: they are given up, and the place is behind them.
    pub fn seal(
        &mut self,
        durable: Origin,
        now: Now,
    ) -> Option<(Result<SealedBatch, SealError>, Origin)> {
        let mut covers: Vec<Cover> = Vec::new();
        let (mut names, mut bytes) = (0, 0);
        let mut covered = None;
        while let Some(FromJudge::Said { origin, alerts }) = self.waiting.front() {
            names += alerts.len();
            bytes += alerts.iter().map(|alert| alert.json.len()).sum::<usize>();
            let is_new = covers
                .last()
                .is_none_or(|cover| cover.buffer != origin.buffer);
            let is_full = names > SERIES_PER_BATCH_MAX.min(BATCH_READINGS_TARGET)
                || bytes > BATCH_TEXT_TARGET_BYTES
                || (is_new && covers.len() == BATCH_COVERS_MAX);
            if *origin >= durable || (is_full && covered.is_some()) {
                break;
            }
            let (origin, alerts) = match self.waiting.pop_front() {
                Some(FromJudge::Said { origin, alerts }) => (origin, alerts),
                _ => break,
            };
            cover(&mut covers, self.covered, origin);
            alerts.iter().for_each(|alert| self.push(alert));
            covered = Some(Origin {
                number: origin.number + 1,
                ..origin
            });
        }
        let covered = covered?;
        self.covered = Some(covered);
        self.sealed_at = Some(now.monotonic);
        let spec = Spec {
            key: BatchKey {
                buffer: self.present,
                lane: Lane::Alerts,
                number: self.next,
            },
            sealed_at: now.wall,
            series_needed: 0,
            covers,
        };
        let sealed = self
            .sealer
            .named(&spec, &self.inline.all, &mut self.readings);
        self.next += u64::from(sealed.is_ok());
        self.readings.clear();
        self.inline.truncate(0);
        Some((sealed, covered))
    }

    fn push(&mut self, alert: &Spoken) {
        let reading = Reading {
            device: &alert.device,
            metric: &alert.metric,
            unit: "",
            meta: alert.meta,
            value: Value::Str(&alert.json),
        };
        let series = self.inline.series(&reading);
        let pushed = series
            .and_then(|series| Ok(self.readings.push(series, reading.meta, reading.value)?));
        if let Err(error) = pushed {
            warn!(%error, device = alert.device, metric = alert.metric, "an alert is not stored");
            counter!("tributary_agent_alerts_unsealed_total").increment(1);
        }
    }
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
mod tests {
    use super::*;
    use crate::alert::AlertState;
    use tributary_protocol::reading::Meta;

    fn origin(life: u64, number: u64) -> Origin {
        Origin {
            buffer: BufferId::new(life, 1),
            number,
        }
    }

    fn now(monotonic: i64) -> Now {
        Now {
            monotonic,
            wall: 1_700_000_000_000_000 + monotonic,
        }
    }

    fn said(origin: Origin, bytes: usize) -> FromJudge {
        FromJudge::Said {
            origin,
            alerts: vec![Spoken {
                device: format!("d{}", origin.number),
                metric: "t".into(),
                meta: Meta::default(),
                state: AlertState::Raised,
                is_present: true,
                json: "x".repeat(bytes),
            }],
        }
    }

    fn covers(sealed: Option<(Result<SealedBatch, SealError>, Origin)>) -> Vec<(u64, u64, u64)> {
        let (sealed, _) = sealed.unwrap();
        let covers = sealed.unwrap().covers().to_vec();
        let shown = |cover: &Cover| (cover.buffer.life(), cover.first, cover.count);
        covers.iter().map(shown).collect()
    }

    #[test]
    fn only_alerts_of_durable_messages_are_sealed_and_at_most_five_times_a_second() {
        let mut lane = AlertLane::new(BufferId::new(2, 1), Some(origin(1, 5)));
        for from in [
            said(origin(1, 7), 3),
            said(origin(2, 4), 3),
            said(origin(2, 9), 3),
        ] {
            lane.take(from);
        }
        assert_eq!(lane.poll_timeout(Some(origin(1, 7))), None);
        assert!(lane.poll_timeout(Some(origin(1, 8))).unwrap() < 0);
        assert!(lane.seal(origin(1, 7), now(0)).is_none());
        assert_eq!(
            covers(lane.seal(origin(2, 6), now(10))),
            [(1, 5, 3), (2, 4, 1)]
        );
        assert_eq!(
            lane.poll_timeout(Some(origin(2, 10))),
            Some(10 + ALERTS_SEAL_US)
        );
        assert_eq!(covers(lane.seal(origin(2, 10), now(20))), [(2, 5, 5)]);
        assert_eq!(lane.next, 2);
    }

    #[test]
    fn a_message_stands_in_one_batch_and_a_batch_is_bounded() {
        let mut lane = AlertLane::new(BufferId::new(2, 1), None);
        let half = BATCH_TEXT_TARGET_BYTES / 5;
        for number in 0..12 {
            lane.take(said(origin(2, number), half.min(60_000)));
        }
        let mut rows = Vec::new();
        while let Some((sealed, _)) = lane.seal(origin(2, 100), now(0)) {
            rows.push(sealed.unwrap().rows());
        }
        assert_eq!(rows.iter().sum::<u32>(), 12);
        assert!(
            rows.len() > 1 && rows.iter().all(|rows| *rows <= 5),
            "{rows:?}"
        );
    }

    #[test]
    fn a_checkpoint_waits_for_all_before_it() {
        let mut lane = AlertLane::new(BufferId::new(2, 1), None);
        lane.take(said(origin(2, 3), 3));
        let (at, body) = (origin(2, 5), vec![1]);
        lane.take(FromJudge::Checkpoint {
            at,
            body: body.clone(),
        });
        assert_eq!(
            lane.checkpoint(Some(origin(2, 9))),
            None,
            "its alerts are not sealed"
        );
        lane.seal(origin(2, 4), now(0)).unwrap().0.unwrap();
        assert_eq!(
            lane.checkpoint(Some(origin(2, 4))),
            None,
            "it is not durable"
        );
        assert_eq!(lane.checkpoint(Some(at)), Some((at, body)));
    }
}
