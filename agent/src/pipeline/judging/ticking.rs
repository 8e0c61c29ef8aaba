//! When the log is to say that time has passed. Told the time, it writes nothing.

use crate::judge::KernelClock;
use crate::limits::{CLOCK_ASK_EVERY, TICK_LEAST};
use crate::seal::IDLE_WAIT;
use std::time::Duration;

/// What the judging stage waits for: a time by the log, and the time that the log has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// µs since 1970, if there is one.
    pub at: Option<i64>,
    pub received: i64,
}

/// What was said about time passing. Times are µs on a clock that never goes back.
#[derive(Debug)]
pub(super) struct Ticking {
    /// A record that says so is on its way through the log.
    under_way: bool,
    /// What the last one was due for, and when it was written, if there was room.
    last: Option<i64>,
    at: i64,
    /// When a record was judged last.
    heard: i64,
    /// What the kernel said of its clock, and when.
    kernel: (KernelClock, i64),
    /// What the log was told last of it.
    told: KernelClock,
}

impl Ticking {
    /// Nothing was said yet, but what this life began with.
    pub fn new(kernel: KernelClock) -> Self {
        Self {
            under_way: false,
            last: None,
            at: 0,
            heard: 0,
            kernel: (kernel, 0),
            told: kernel,
        }
    }

    /// It begins to be asked.
    pub fn begin(&mut self, now: i64) {
        (self.at, self.heard, self.kernel.1) = (now, now, now);
    }

    /// A record was judged.
    pub fn heard(&mut self, is_tick: bool, now: i64) {
        self.under_way &= !is_tick;
        self.heard = now;
    }

    /// Asks the kernel, if that was long ago.
    pub fn ask(&mut self, now: i64, ask: impl FnOnce() -> KernelClock) {
        if passed(self.kernel.1, now) >= us(CLOCK_ASK_EVERY) {
            self.kernel = (ask(), now);
        }
    }

    /// How long there is nothing to say, µs.
    pub fn wait(&self, due: Due, now: i64) -> i64 {
        let is_new = |at: &i64| !self.under_way && self.last != Some(*at);
        let at = due.at.filter(is_new);
        let due = at.map(|at| self.due_in(at, due.received, now));
        let soonest = us(TICK_LEAST) - passed(self.at, now);
        due.map_or(us(IDLE_WAIT), |due| due.max(soonest).min(us(IDLE_WAIT)))
    }

    /// How long it is until a time that the stage asked for: counted from when it last heard of
    /// the time, whatever the gateway's clock does meanwhile.
    fn due_in(&self, at: i64, received: i64, now: i64) -> i64 {
        let wait = at.saturating_sub(received).max(0);
        (wait - passed(self.heard, now)).max(0)
    }

    /// Whether the log is to say that time has passed, or that the kernel thinks otherwise of its
    /// clock, and then what that thinks: one record at a time, and for what is still due behind it
    /// only another after a pause.
    pub fn poll(&mut self, due: Due, now: i64) -> Option<KernelClock> {
        let kernel = self.kernel.0;
        let is_news = kernel != self.told;
        let at = due.at;
        let at = at.filter(|at| self.due_in(*at, due.received, now) == 0);
        let passed = passed(self.at, now);
        let is_again = at == self.last && passed < us(IDLE_WAIT);
        let is_soon = !is_news && passed < us(TICK_LEAST);
        let is_due = (at.is_some() && !is_soon) || is_news;
        if !is_due || self.under_way || is_again {
            return None;
        }
        (self.last, self.at) = (at, now);
        Some(kernel)
    }

    /// The record that [`poll`](Self::poll) asked for is on its way.
    pub fn told(&mut self, kernel: KernelClock) {
        self.under_way = true;
        self.told = kernel;
    }
}

fn passed(since: i64, now: i64) -> i64 {
    now.saturating_sub(since).max(0)
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: i64 = 1_000;

    /// A stage that begins now.
    fn begin(now: i64) -> Ticking {
        let mut ticking = Ticking::new(KernelClock::default());
        ticking.begin(now);
        ticking
    }

    fn due(at: i64, received: i64) -> Due {
        Due {
            at: Some(at),
            received,
        }
    }

    /// A stage for which something else is due with each record that it hears.
    #[test]
    fn however_much_is_due_ticks_are_20_ms_apart() {
        let begun = 7 * MS;
        let mut ticking = begin(begun);
        let (mut ticks, mut received) = (Vec::new(), 0);
        for ms in 0..200 {
            let now = begun + ms * MS;
            let wait = ticking.wait(due(received + 1, received + 1), now);
            if ticking.poll(due(received + 1, received + 1), now).is_some() {
                ticking.told(KernelClock::default());
                ticks.push(ms);
                received += 1;
                ticking.heard(true, now);
            } else {
                assert_eq!(wait, (20 - ms % 20) * MS, "nor does it wake before");
            }
        }
        assert_eq!(ticks, [20, 40, 60, 80, 100, 120, 140, 160, 180]);
    }

    #[test]
    fn one_is_under_way_at_a_time_and_the_same_again_only_after_a_pause() {
        let begun = 7 * MS;
        let (kernel, mut ticking) = (KernelClock::default(), begin(begun));
        let same = due(5, 5);
        let first = begun + us(TICK_LEAST);
        assert_eq!(ticking.poll(same, first), Some(kernel));
        ticking.told(kernel);
        assert_eq!(ticking.wait(same, first + us(TICK_LEAST)), us(IDLE_WAIT));
        assert_eq!(ticking.poll(due(6, 6), first + 10 * us(IDLE_WAIT)), None);
        ticking.heard(true, first + us(TICK_LEAST));
        // It was judged, and what it was for is due all the same.
        assert_eq!(ticking.poll(same, first + us(TICK_LEAST)), None);
        assert_eq!(ticking.poll(same, first + us(IDLE_WAIT)), Some(kernel));
    }

    #[test]
    fn what_the_kernel_thinks_otherwise_is_told_at_once() {
        let begun = 7 * MS;
        let mut ticking = begin(begun);
        let nothing = Due {
            at: None,
            received: 0,
        };
        let synchronised = KernelClock {
            synchronised: Some(true),
            boot: 7,
        };
        ticking.ask(begun + us(CLOCK_ASK_EVERY) - MS, || synchronised);
        assert_eq!(ticking.poll(nothing, begun), None, "it was asked just now");
        let now = begun + us(CLOCK_ASK_EVERY);
        ticking.ask(now, || synchronised);
        assert_eq!(ticking.poll(nothing, now), Some(synchronised));
        // There was no room for the record: it is asked for again.
        let later = now + us(IDLE_WAIT);
        assert_eq!(ticking.poll(nothing, later), Some(synchronised));
        ticking.told(synchronised);
        ticking.heard(true, later);
        assert_eq!(ticking.poll(nothing, later + us(IDLE_WAIT)), None);
    }
}
