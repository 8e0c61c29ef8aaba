//! When the log is to say that time has passed. Told the time, it writes nothing.

use crate::judge::KernelClock;
use crate::limits::{CLOCK_ASK_EVERY, TICK_LEAST};
use crate::seal::IDLE_WAIT;
use std::time::{Duration, Instant};

/// What the judging stage waits for: a time by the log, and the time that the log has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// µs since 1970, if there is one.
    pub at: Option<i64>,
    pub received: i64,
}

/// What was said about time passing.
#[derive(Debug)]
pub(super) struct Ticking {
    /// A record that says so is on its way through the log.
    under_way: bool,
    /// What the last one was due for, and when it was written, if there was room.
    last: Option<i64>,
    at: Instant,
    /// When a record was judged last.
    heard: Instant,
    /// What the kernel said of its clock, and when.
    kernel: (KernelClock, Instant),
    /// What the log was told last of it.
    told: KernelClock,
}

impl Ticking {
    /// Nothing was said yet, but what this life began with.
    pub fn new(kernel: KernelClock, now: Instant) -> Self {
        Self {
            under_way: false,
            last: None,
            at: now,
            heard: now,
            kernel: (kernel, now),
            told: kernel,
        }
    }

    /// A record was judged.
    pub fn heard(&mut self, is_tick: bool, now: Instant) {
        self.under_way &= !is_tick;
        self.heard = now;
    }

    /// Asks the kernel, if that was long ago.
    pub fn ask(&mut self, now: Instant, ask: impl FnOnce() -> KernelClock) {
        if now.saturating_duration_since(self.kernel.1) >= CLOCK_ASK_EVERY {
            self.kernel = (ask(), now);
        }
    }

    /// How long there is nothing to say.
    pub fn wait(&self, due: Due, now: Instant) -> Duration {
        let is_new = |at: &i64| !self.under_way && self.last != Some(*at);
        let at = due.at.filter(is_new);
        let due = at.map(|at| self.due_in(at, due.received, now));
        let soonest = TICK_LEAST.saturating_sub(now.saturating_duration_since(self.at));
        due.map_or(IDLE_WAIT, |due| due.max(soonest).min(IDLE_WAIT))
    }

    /// How long it is until a time that the stage asked for: counted from when it last heard of
    /// the time, whatever the gateway's clock does meanwhile.
    fn due_in(&self, at: i64, received: i64, now: Instant) -> Duration {
        let us = at.saturating_sub(received).max(0);
        let passed = now.saturating_duration_since(self.heard);
        Duration::from_micros(us.unsigned_abs()).saturating_sub(passed)
    }

    /// Whether the log is to say that time has passed, or that the kernel thinks otherwise of its
    /// clock, and then what that thinks: one record at a time, and for what is still due behind it
    /// only another after a pause.
    pub fn poll(&mut self, due: Due, now: Instant) -> Option<KernelClock> {
        let kernel = self.kernel.0;
        let is_news = kernel != self.told;
        let at = due.at;
        let at = at.filter(|at| self.due_in(*at, due.received, now).is_zero());
        let passed = now.saturating_duration_since(self.at);
        let is_again = at == self.last && passed < IDLE_WAIT;
        let is_soon = !is_news && passed < TICK_LEAST;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn due(at: i64, received: i64) -> Due {
        Due {
            at: Some(at),
            received,
        }
    }

    /// A stage for which something else is due with each record that it hears.
    #[test]
    fn however_much_is_due_ticks_are_20_ms_apart() {
        let begun = Instant::now();
        let mut ticking = Ticking::new(KernelClock::default(), begun);
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
        let begun = Instant::now();
        let kernel = KernelClock::default();
        let mut ticking = Ticking::new(kernel, begun);
        let same = due(5, 5);
        let first = begun + TICK_LEAST;
        assert_eq!(ticking.poll(same, first), Some(kernel));
        ticking.told(kernel);
        assert_eq!(ticking.wait(same, first + TICK_LEAST), IDLE_WAIT);
        assert_eq!(ticking.poll(due(6, 6), first + 10 * IDLE_WAIT), None);
        ticking.heard(true, first + TICK_LEAST);
        // It was judged, and what it was for is due all the same.
        assert_eq!(ticking.poll(same, first + TICK_LEAST), None);
        assert_eq!(ticking.poll(same, first + IDLE_WAIT), Some(kernel));
    }

    #[test]
    fn what_the_kernel_thinks_otherwise_is_told_at_once() {
        let begun = Instant::now();
        let mut ticking = Ticking::new(KernelClock::default(), begun);
        let nothing = Due {
            at: None,
            received: 0,
        };
        let synchronised = KernelClock {
            synchronised: Some(true),
            boot: 7,
        };
        ticking.ask(begun + CLOCK_ASK_EVERY - MS, || synchronised);
        assert_eq!(ticking.poll(nothing, begun), None, "it was asked just now");
        let now = begun + CLOCK_ASK_EVERY;
        ticking.ask(now, || synchronised);
        assert_eq!(ticking.poll(nothing, now), Some(synchronised));
        // There was no room for the record: it is asked for again.
        let later = now + IDLE_WAIT;
        assert_eq!(ticking.poll(nothing, later), Some(synchronised));
        ticking.told(synchronised);
        ticking.heard(true, later);
        assert_eq!(ticking.poll(nothing, later + IDLE_WAIT), None);
    }
}
