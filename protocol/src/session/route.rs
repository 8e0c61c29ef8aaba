//! To which aggregator of a list an agent goes: the first is its home, the others stand in for it.
//! It is told the time and what became of each try, and says whom to dial. It opens no connection.

use super::Illegal;
use crate::limits::{ENDPOINTS_MAX, FAILOVER_AFTER_US, RETURN_AFTER_US};

/// Where an agent stands towards the aggregators of its list, by their places in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteState {
    /// No session: this one is dialled, now or after a pause.
    Dialling(usize),
    /// In a session with the first.
    Home,
    /// In a session with another.
    Away(usize),
    /// In a session with another, while the first is dialled beside it.
    Probing(usize),
}

/// What can happen on the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteEvent {
    /// A session stands with the one that was dialled.
    Welcomed,
    /// The one that was dialled can't be reached, or refuses.
    Failed,
    /// The session is over.
    Lost,
    /// There was no session for too long.
    FailoverDue,
    /// It is time to look for the first again.
    ReturnDue,
}

impl RouteState {
    /// Every state of a list of so many.
    pub fn all(endpoints: usize) -> Vec<Self> {
        let others = 1..endpoints;
        let dialling = (0..endpoints).map(Self::Dialling);
        let away = others.clone().map(Self::Away);
        let probing = others.map(Self::Probing);
        dialling
            .chain([Self::Home])
            .chain(away)
            .chain(probing)
            .collect()
    }

    /// The state after `event`, in a list of so many.
    ///
    /// # Errors
    /// [`Illegal`]: the shell told what can't be.
    pub fn on(self, event: RouteEvent, endpoints: usize) -> Result<Self, Illegal> {
        use RouteEvent::{Failed, FailoverDue, Lost, ReturnDue, Welcomed};
        match (self, event) {
            (Self::Dialling(0) | Self::Probing(_), Welcomed) => Ok(Self::Home),
            (Self::Dialling(at), Welcomed) => Ok(Self::Away(at)),
            (Self::Dialling(at), Failed) => Ok(Self::Dialling(at)),
            (Self::Dialling(at), FailoverDue) => Ok(Self::Dialling((at + 1) % endpoints.max(1))),
            (Self::Home, Lost) => Ok(Self::Dialling(0)),
            (Self::Away(at), Lost) => Ok(Self::Dialling(at)),
            // The first is being dialled already.
            (Self::Probing(_), Lost) => Ok(Self::Dialling(0)),
            (Self::Away(at), ReturnDue) => Ok(Self::Probing(at)),
            // The session was not left for it.
            (Self::Probing(at), Failed) => Ok(Self::Away(at)),
            (state, FailoverDue | ReturnDue) => Ok(state),
            (state, event) => Err(Illegal {
                state: state.name(),
                event: event.name(),
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dialling(_) => "dialling",
            Self::Home => "at the first aggregator",
            Self::Away(_) => "at another aggregator",
            Self::Probing(_) => "at another aggregator and dialling the first",
        }
    }
}

impl RouteEvent {
    /// Every event.
    pub const ALL: [Self; 5] = [
        Self::Welcomed,
        Self::Failed,
        Self::Lost,
        Self::FailoverDue,
        Self::ReturnDue,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Welcomed => "a Welcome",
            Self::Failed => "a try that failed",
            Self::Lost => "a loss of the session",
            Self::FailoverDue => "the time to go to another",
            Self::ReturnDue => "the time to return",
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteStep {
    /// Dial this one.
    Dial(usize),
    /// Dial the first beside the session that stands. When the connection stands, stop sending,
    /// wait for what is in flight for as long as suits, leave the session, and greet the first.
    Probe,
    /// End the session that stands, and say that it is [lost](Route::on_lost): that aggregator
    /// takes nothing.
    Leave,
    /// Nothing before [`Route::poll_timeout`].
    Wait,
}

/// How long an agent puts up with what is not its home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteTimes {
    /// Microseconds without a session that takes something after which the next of the list is
    /// tried.
    pub failover_after_us: i64,
    /// Microseconds after which the first is looked for again.
    pub return_after_us: i64,
}

impl Default for RouteTimes {
    fn default() -> Self {
        Self {
            failover_after_us: FAILOVER_AFTER_US,
            return_after_us: RETURN_AFTER_US,
        }
    }
}

/// To whom an agent goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    state: RouteState,
    endpoints: usize,
    failover_after_us: i64,
    return_after_us: i64,
    /// Whether the one that is meant is being dialled.
    under_way: bool,
    /// Since when nothing is taken; and since when nothing moves in the session that stands, or
    /// when it began.
    silent_since: i64,
    moved_at: i64,
    /// Whether anything was taken in it.
    took: bool,
    /// Not dialled, or not looked for, before this.
    not_before: i64,
    /// Tries in a row that failed, and how many of the list they were since it was time to go to
    /// another.
    failures: u32,
    in_round: usize,
}

impl Route {
    /// An agent with a list of so many aggregators, of which [`ENDPOINTS_MAX`] count, and one
    /// at least is there.
    pub fn new(endpoints: usize, times: RouteTimes, now: i64) -> Self {
        Self {
            state: RouteState::Dialling(0),
            endpoints: endpoints.clamp(1, ENDPOINTS_MAX),
            failover_after_us: times.failover_after_us,
            return_after_us: times.return_after_us,
            under_way: false,
            silent_since: now,
            moved_at: now,
            took: false,
            not_before: now,
            failures: 0,
            in_round: 0,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> RouteState {
        self.state
    }

    /// Tries in a row that failed: how long the next pause should be.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What to do now. Each thing is said once, until something is told of it.
    pub fn poll(&mut self, now: i64) -> RouteStep {
        if self.leaves_at().is_some_and(|at| at <= now) {
            return RouteStep::Leave;
        }
        if self.under_way || now < self.not_before {
            return RouteStep::Wait;
        }
        match self.state {
            RouteState::Dialling(at) => {
                self.under_way = true;
                RouteStep::Dial(at)
            }
            RouteState::Away(_) => {
                self.advance(RouteEvent::ReturnDue)
                    .expect("whoever is away may return");
                self.under_way = true;
                RouteStep::Probe
            }
            RouteState::Home | RouteState::Probing(_) => RouteStep::Wait,
        }
    }

    /// When [`poll`](Self::poll) has something to say, if nothing is told before.
    pub fn poll_timeout(&self) -> Option<i64> {
        let waits = matches!(self.state, RouteState::Dialling(_) | RouteState::Away(_));
        let waits = (waits && !self.under_way).then_some(self.not_before);
        waits.into_iter().chain(self.leaves_at()).min()
    }

    /// When a session is left in which nothing was taken, nor moved: never, if there is no other
    /// to go to.
    fn leaves_at(&self) -> Option<i64> {
        let session = !matches!(self.state, RouteState::Dialling(_));
        let since = self.silent_since.max(self.moved_at);
        (session && self.endpoints > 1).then(|| since.saturating_add(self.failover_after_us))
    }

    /// Something was acknowledged, or nothing is left to send: told at each acknowledgement, and
    /// before [`poll`](Self::poll) as long as there is nothing to send.
    pub fn on_progress(&mut self, now: i64) {
        self.silent_since = self.silent_since.max(now);
        self.took = true;
        self.failures = 0;
        self.in_round = 0;
    }

    /// What is under way moves, over a link that is slow: the session is not left for it. It is
    /// nothing that was taken: if the session breaks, this was a try that failed.
    pub fn on_movement(&mut self, now: i64) {
        self.moved_at = self.moved_at.max(now);
    }

    /// A session stands with the one that was dialled.
    ///
    /// # Errors
    /// When none was dialled.
    pub fn on_welcomed(&mut self, now: i64) -> Result<(), Illegal> {
        self.advance(RouteEvent::Welcomed)?;
        self.under_way = false;
        self.moved_at = now;
        self.took = false;
        self.not_before = now.saturating_add(self.return_after_us);
        Ok(())
    }

    /// The one that was dialled can't be reached, or refuses. `pause_us`: how long to let it be, if
    /// it is to be tried once more and not another.
    ///
    /// # Errors
    /// When none was dialled.
    pub fn on_failed(&mut self, now: i64, pause_us: i64) -> Result<(), Illegal> {
        let probed = matches!(self.state, RouteState::Probing(_));
        self.advance(RouteEvent::Failed)?;
        self.under_way = false;
        if probed {
            self.not_before = now.saturating_add(self.return_after_us);
            return Ok(());
        }
        self.try_failed(now, pause_us)
    }

    /// Counts a try that came to nothing, and goes to the next if it is time.
    fn try_failed(&mut self, now: i64, pause_us: i64) -> Result<(), Illegal> {
        self.failures = self.failures.saturating_add(1);
        let due = now >= self.silent_since.saturating_add(self.failover_after_us);
        let mut pauses = true;
        if due {
            self.advance(RouteEvent::FailoverDue)?;
            self.in_round += 1;
            // Once around, and nobody answered.
            pauses = self.in_round >= self.endpoints;
            self.in_round %= self.endpoints;
        }
        self.not_before = if pauses {
            now.saturating_add(pause_us)
        } else {
            now
        };
        Ok(())
    }

    /// The session is over. `pause_us`: how long to let that aggregator be; nothing as a rule. One
    /// in which nothing was taken is a try that failed.
    ///
    /// # Errors
    /// When there was none.
    pub fn on_lost(&mut self, now: i64, pause_us: i64) -> Result<(), Illegal> {
        let probing = matches!(self.state, RouteState::Probing(_));
        self.advance(RouteEvent::Lost)?;
        if self.took {
            self.silent_since = now;
        }
        // The first is being dialled as it is; if it does not answer, another is.
        if probing {
            self.silent_since = now.saturating_sub(self.failover_after_us);
            return Ok(());
        }
        self.under_way = false;
        if !self.took {
            return self.try_failed(now, pause_us);
        }
        self.not_before = now.saturating_add(pause_us);
        Ok(())
    }

    fn advance(&mut self, event: RouteEvent) -> Result<(), Illegal> {
        self.state = self.state.on(event, self.endpoints)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
