//! Sessions that a newer one of the same identity ended: whether somebody else has it, too.

use super::{Uplink, us};
use crate::limits::{FENCES_KEPT, FENCES_WITHIN};
use crate::spool::Spool;
use tracing::error;
use tributary_protocol::message::{Message, Reject, RejectCode};

impl<S: Spool> Uplink<S> {
    /// A newer session of this identity has begun, and it is not ours: somebody else has it, too.
    pub(super) fn note_fence(&mut self, message: &Message, now: i64) {
        let fenced = |reject: &Reject| reject.code == RejectCode::Fenced;
        if !matches!(message, Message::Reject(reject) if fenced(reject)) {
            return;
        }
        // Whoever it is, two that come back at once take nothing but each other's sessions.
        self.acked = false;
        if self.fenced.len() >= FENCES_KEPT {
            self.fenced.pop_front();
        }
        self.fenced.push_back(now);
        self.status.send_modify(|status| status.fenced += 1);
        self.forget_fences(now);
        let last_hour = self.fenced.len();
        if !last_hour.is_power_of_two() {
            // Whoever did not read it so far does not read it now.
            return;
        }
        error!(
            target = self.way.address(),
            last_hour,
            "a newer session of this identity has begun: does another machine run from a copy of \
             this disk, or with this certificate? Stop one of them, and give it an identity of \
             its own; see docs/identity.md"
        );
    }

    /// Says how many there were in the last hour.
    pub(super) fn forget_fences(&mut self, now: i64) {
        let over = |at: &i64| now.saturating_sub(*at) >= us(FENCES_WITHIN);
        while self.fenced.front().is_some_and(over) {
            self.fenced.pop_front();
        }
        let count = self.fenced.len() as u64;
        self.status.send_if_modified(|status| {
            let changed = status.fenced_last_hour != count;
            status.fenced_last_hour = count;
            changed
        });
    }
}
