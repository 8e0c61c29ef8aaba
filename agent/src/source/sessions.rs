//! Which clients have a session that outlives their connection (section 4.1 of both standards).
//!
//! All that a session is here is that it exists, since what was received in it stands in the log,
//! and what its client is subscribed to, which the log does not know: a session whose subscriptions
//! find no room, or are gone with an earlier life of the agent, is not said to be present. The
//! table is told the time; what it must know after a restart is in the log, too, and told by who
//! replays it. Until then clients that want a session wait.

use super::connection::Parked;
use crate::limits::{PARKED_BYTES_MAX, SESSION_EXPIRY_S_MAX, SESSIONS_MAX};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a client is told of its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    /// Whether there was one, which goes on.
    pub present: bool,
    /// Seconds that it is kept once the client is gone.
    pub expiry_s: u32,
    /// Whether the log does not know that yet.
    pub changed: bool,
    /// What its client was subscribed to.
    pub subscriptions: Option<Box<Parked>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kept {
    expiry_s: u32,
    /// Since when its client is gone; `None` while it is connected.
    gone: Option<Instant>,
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        let expiry = Duration::from_secs(self.expiry_s.into());
        self.gone
            .is_some_and(|gone| now.saturating_duration_since(gone) >= expiry)
    }
}

/// The sessions, told the time.
#[derive(Debug)]
struct Table {
    sessions: HashMap<u64, Kept>,
    /// Sessions that ended before it was known whether there were any; `None` once it is.
    ended: Option<HashSet<u64>>,
    /// Subscriptions of clients that are gone.
    parked: HashMap<u64, Box<Parked>>,
    parked_bytes: usize,
    most: usize,
}

impl Table {
    fn new(most: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            ended: None,
            parked: HashMap::new(),
            parked_bytes: 0,
            most,
        }
    }

    /// A client came that would have its session kept for `expiry_s`, `clean` or as it was.
    fn open(&mut self, session: u64, clean: bool, expiry_s: u32, now: Instant) -> Opened {
        let before = self.sessions.get(&session).copied();
        let present = before.is_some_and(|kept| !kept.is_over(now)) && !clean;
        let subscriptions = self.unpark(session);
        // The log was told that it has ended.
        let untold = subscriptions.is_some() && !present;
        let wanted_s = expiry_s.min(SESSION_EXPIRY_S_MAX);
        let expiry_s = match before.is_some() || self.has_room(now) {
            true => wanted_s,
            false => 0,
        };
        let kept = Kept {
            expiry_s,
            gone: None,
        };
        if expiry_s > 0 {
            self.sessions.insert(session, kept);
        } else {
            self.sessions.remove(&session);
        }
        Opened {
            present,
            expiry_s,
            changed: (untold && expiry_s > 0)
                || before.map_or(0, |kept| kept.expiry_s) != expiry_s
                || (expiry_s == 0 && self.end(session)),
            subscriptions: subscriptions.filter(|_| present),
        }
    }

    /// A client without a session to be came: whether the log may know of one that is to end.
    fn end(&mut self, session: u64) -> bool {
        let most = self.most;
        let ended = self.ended.as_mut();
        ended.is_some_and(|ended| ended.len() < most && ended.insert(session))
    }

    /// Its client is gone; without an expiry if it was not let in, which changes nothing.
    fn close(&mut self, session: u64, expiry_s: Option<u32>, parked: Option<Parked>, now: Instant) {
        let Some(kept) = self.sessions.get_mut(&session) else {
            return;
        };
        kept.expiry_s = expiry_s.unwrap_or(kept.expiry_s);
        kept.gone = Some(now);
        if kept.expiry_s == 0 {
            self.sessions.remove(&session);
        } else if let Some(parked) = parked
            && !self.park(session, parked, now)
        {
            self.sessions.remove(&session);
        }
    }

    /// Keeps the subscriptions of a client that is gone; whether there was room.
    fn park(&mut self, session: u64, parked: Parked, now: Instant) -> bool {
        let bytes = parked.held_bytes();
        if self.parked_bytes + bytes > PARKED_BYTES_MAX {
            self.sweep(now);
        }
        let room = self.parked_bytes + bytes <= PARKED_BYTES_MAX;
        if room {
            self.unpark(session);
            self.parked_bytes += bytes;
            self.parked.insert(session, Box::new(parked));
        }
        room
    }

    fn unpark(&mut self, session: u64) -> Option<Box<Parked>> {
        let parked = self.parked.remove(&session)?;
        self.parked_bytes -= parked.held_bytes();
        Some(parked)
    }

    /// Forgets sessions whose time is over.
    fn sweep(&mut self, now: Instant) {
        self.sessions.retain(|_, kept| !kept.is_over(now));
        let sessions = &self.sessions;
        self.parked
            .retain(|session, _| sessions.contains_key(session));
        let held = self.parked.values().map(|parked| parked.held_bytes());
        self.parked_bytes = held.sum();
    }

    /// Whether one more may be kept; the one whose client is gone for longest makes room.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.sessions.len() < self.most {
            return true;
        }
        self.sweep(now);
        if self.sessions.len() < self.most {
            return true;
        }
        let gone = self.sessions.iter();
        let gone = gone.filter_map(|(session, kept)| Some((kept.gone?, *session)));
        let Some((_, longest)) = gone.min() else {
            return false;
        };
        self.sessions.remove(&longest);
        self.unpark(longest);
        true
    }
}

/// The sessions, shared by the listener's connections and whoever replays the log.
#[derive(Clone, Debug)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    known: CancellationToken,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Sessions {
    /// None is known; clients that want one wait until [`replayed`](Self::replayed).
    pub fn new() -> Self {
        Self {
            table: Arc::new(Mutex::new(Table {
                ended: Some(HashSet::new()),
                ..Table::new(SESSIONS_MAX)
            })),
            known: CancellationToken::new(),
        }
    }

    /// There were none before.
    pub fn none() -> Self {
        let sessions = Self::new();
        sessions.lock().ended = None;
        sessions.known.cancel();
        sessions
    }

    /// These were there before, each with the seconds that it is kept, counted from now on: the
    /// log does not say since when a client is gone.
    pub fn replayed(&self, before: impl IntoIterator<Item = (u64, u32)>, now: Instant) {
        let mut table = self.lock();
        let ended = table.ended.take().unwrap_or_default();
        for (session, expiry_s) in before {
            if table.sessions.len() < table.most && !ended.contains(&session) {
                let gone = Some(now);
                let kept = Kept { expiry_s, gone };
                // Who is connected already is known better.
                table.sessions.entry(session).or_insert(kept);
            }
        }
        drop(table);
        self.known.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client came. Cancel safe; waits for the replay where the answer depends on it.
    pub(super) async fn open(&self, session: u64, clean: bool, expiry_s: u32) -> Opened {
        if !clean || expiry_s > 0 {
            self.known.cancelled().await;
        }
        self.lock().open(session, clean, expiry_s, Instant::now())
    }

    /// Whether it is known which sessions there were before.
    #[cfg(any(test, feature = "world"))]
    pub(super) fn are_known(&self) -> bool {
        self.known.is_cancelled()
    }

    /// As [`open`](Self::open), told the time; `None` where it would have to wait.
    #[cfg(any(test, feature = "world"))]
    pub(super) fn open_now(
        &self,
        session: u64,
        clean: bool,
        expiry_s: u32,
        now: Instant,
    ) -> Option<Opened> {
        let waits = !clean || expiry_s > 0;
        let is_known = !waits || self.are_known();
        is_known.then(|| self.lock().open(session, clean, expiry_s, now))
    }

    /// A client is gone, and its session is to be kept for `expiry_s` from now on, or as before if
    /// it was not let in, with what it was subscribed to.
    pub(super) fn close(&self, session: u64, expiry_s: Option<u32>, parked: Option<Parked>) {
        self.close_at(session, expiry_s, parked, Instant::now());
    }

    /// As [`close`](Self::close), told the time.
    pub(super) fn close_at(
        &self,
        session: u64,
        expiry_s: Option<u32>,
        parked: Option<Parked>,
        now: Instant,
    ) {
        self.lock().close(session, expiry_s, parked, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Opened = Opened {
        present: false,
        expiry_s: 100,
        changed: true,
        subscriptions: None,
    };

    fn parked(filter_bytes: usize) -> Parked {
        let terms = super::super::hub::Terms {
            qos: 1,
            id: None,
            as_published: false,
        };
        let filter = "x".repeat(filter_bytes).into();
        let subscriptions = vec![super::super::hub::Subscription { filter, terms }];
        Parked {
            subscriptions,
            taken: 7,
        }
    }

    #[test]
    fn subscriptions_go_on_with_their_session_and_end_with_it() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut table = Table::new(8);
        table.open(1, false, 100, start);
        table.close(1, Some(100), Some(parked(10)), start);
        let opened = table.open(1, false, 100, at(99));
        assert!(
            opened.present && !opened.changed,
            "the log knows of no session, and shall not"
        );
        assert_eq!(opened.subscriptions.as_deref(), Some(&parked(10)));
        for (gone_s, clean) in [(0, true), (100, false)] {
            table.close(1, Some(100), Some(parked(10)), start);
            let opened = table.open(1, clean, 100, at(gone_s));
            assert!(!opened.present && opened.subscriptions.is_none());
            assert!(
                opened.changed,
                "the log is told that there is a session again"
            );
        }
        table.close(1, Some(0), Some(parked(10)), start);
        table.close(2, Some(100), Some(parked(10)), start);
        assert_eq!(
            (table.parked.len(), table.parked_bytes),
            (0, 0),
            "nobody has these"
        );
    }

    #[test]
    fn a_session_whose_subscriptions_find_no_room_ends() {
        let start = Instant::now();
        let mut table = Table::new(8);
        for session in [1, 2, 3] {
            table.open(session, false, 100, start);
        }
        table.close(1, Some(10), Some(parked(PARKED_BYTES_MAX / 2)), start);
        table.close(2, Some(100), Some(parked(PARKED_BYTES_MAX / 2)), start);
        assert!(!table.open(2, false, 100, start).present);
        let later = start + Duration::from_secs(10);
        table.close(3, Some(100), Some(parked(PARKED_BYTES_MAX / 2)), later);
        assert!(
            table.open(3, false, 100, later).present,
            "the first is over"
        );
        assert_eq!((table.parked.len(), table.parked_bytes), (0, 0));
    }

    #[test]
    fn a_session_is_there_until_its_time_is_over() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut table = Table::new(8);
        assert_eq!(table.open(1, false, 100, start), KEPT);
        table.close(1, Some(100), None, at(10));
        let present = Opened {
            present: true,
            changed: false,
            ..KEPT
        };
        assert_eq!(table.open(1, false, 100, at(109)), present);
        table.close(1, Some(100), None, at(200));
        let over = Opened {
            changed: false,
            ..KEPT
        };
        assert_eq!(table.open(1, false, 100, at(300)), over, "a new one");
        assert_eq!(table.open(1, true, 100, at(301)), over, "a clean start");
        let ended = Opened {
            present: true,
            expiry_s: 0,
            ..KEPT
        };
        assert_eq!(table.open(1, false, 0, at(302)), ended);
        assert_eq!(table.open(1, false, 100, at(303)), KEPT);
        table.close(1, Some(0), None, at(304));
        assert_eq!(table.open(1, false, 100, at(304)), KEPT, "it had ended");
    }

    #[test]
    fn for_ever_is_a_week() {
        let mut table = Table::new(8);
        let opened = table.open(1, false, u32::MAX, Instant::now());
        assert_eq!(opened.expiry_s, SESSION_EXPIRY_S_MAX);
    }

    #[test]
    fn whoever_is_gone_for_longest_makes_room_and_nobody_who_is_there() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut table = Table::new(2);
        for session in [1, 2] {
            table.open(session, false, 100, start);
        }
        let refused = table.open(3, false, 100, start);
        assert_eq!((refused.expiry_s, refused.changed), (0, false));
        table.close(2, Some(100), None, at(1));
        table.close(1, Some(100), None, at(2));
        assert_eq!(table.open(3, false, 100, at(3)).expiry_s, 100);
        assert!(
            !table.open(2, false, 100, at(4)).present,
            "2 was gone for longest"
        );
        assert!(!table.open(1, false, 100, at(5)).present, "and then 1");
    }

    #[tokio::test]
    async fn who_wants_a_session_waits_for_the_replay() {
        let sessions = Sessions::new();
        // One that wants none does not, and ends the one that the log may know of.
        let ended = sessions.open(7, true, 0).await;
        assert_eq!((ended.present, ended.changed), (false, true));
        assert!(!sessions.open(7, true, 0).await.changed, "said once");
        let mut waiting = Box::pin(sessions.open(8, false, 100));
        let polled = futures_poll(&mut waiting).await;
        assert_eq!(polled, None);
        sessions.replayed([(7, 100), (8, 100)], Instant::now());
        assert!(waiting.await.present);
        assert!(!sessions.open(7, false, 100).await.present);
    }

    /// What a future gives now, if it does.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
