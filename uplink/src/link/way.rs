//! Which aggregator of its list the uplink goes to: what [`Route`] says, in the uplink's own steps.
//! With a list of one it says nothing, and the uplink dials and waits as it does.

use super::{Do, Phase, Uplink, goodbye, us};
use crate::limits::{HANDSHAKE_TIMEOUT, RETURN_DRAIN};
use crate::spool::Spool;
use tracing::info;
use tributary_planted::planted;
use tributary_protocol::session::{Place, Route, RouteState, RouteStep, RouteTimes};

/// The list, and where in it the uplink is.
pub(super) struct Way {
    addresses: Vec<String>,
    route: Route,
    /// Whether the route knows of a session.
    welcomed: bool,
    home: Home,
}

/// The first of the list, while the session with another stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    /// It is let be.
    Apart,
    /// It is dialled.
    Dialled,
    /// A connection to it stands since then, and the session goes on for as long as this at most.
    Stands { since: i64, until: i64 },
}

impl Way {
    pub(super) fn to(address: &str) -> Self {
        Self {
            addresses: Vec::from([address.to_owned()]),
            route: Route::new(1, RouteTimes::default(), 0),
            welcomed: false,
            home: Home::Apart,
        }
    }

    /// How many the list has.
    pub(super) fn is_choice(&self) -> bool {
        self.addresses.len() > 1
    }

    /// Which of the list is dialled, or has the session.
    pub(super) fn at(&self) -> usize {
        match self.route.state() {
            RouteState::Dialling(at) | RouteState::Away(at) | RouteState::Probing(at) => at,
            RouteState::Home => 0,
        }
    }

    pub(super) fn address(&self) -> &str {
        self.addresses.get(self.at()).map_or("", String::as_str)
    }

    /// Whether nothing new is to be sent, since home waits.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.home, Home::Stands { .. })
    }

    /// Something was acknowledged, or there is nothing to send.
    pub(super) fn progresses(&mut self, now: i64) {
        self.route.on_progress(now);
    }

    /// Something moves towards it, or it is not what is waited for.
    pub(super) fn moves(&mut self, now: i64) {
        self.route.on_movement(now);
    }

    /// A session stands with the one that was dialled.
    pub(super) fn welcomed(&mut self, now: i64) -> Result<(), String> {
        self.welcomed = true;
        self.home = Home::Apart;
        self.route.on_welcomed(now).map_err(|e| e.to_string())
    }
}

impl<S: Spool> Uplink<S> {
    /// These stand in for the aggregator that it was made for, in this order. Before it is first
    /// [polled](Self::poll), which is at `now`.
    #[must_use]
    pub fn or_to(mut self, others: &[String], times: RouteTimes, now: i64) -> Self {
        self.way.addresses.extend_from_slice(others);
        let places: Vec<Place> = self.way.addresses.iter().map(|it| Place::of(it)).collect();
        self.sender.keep_to(&places);
        self.way.route = Route::new(places.len(), times, now);
        self
    }

    /// Which of the list is to be [dialled](Do::Dial), or has the session.
    pub fn at(&self) -> usize {
        self.way.at()
    }

    /// The connection to the first of the list that was [asked for](Do::Probe) stands, since then.
    pub fn probed(&mut self, since: i64, now: i64) {
        match (self.phase, self.way.home) {
            (Phase::Dialling, Home::Dialled) => {
                self.way.home = Home::Apart;
                self.phase = Phase::Adopting(since);
            }
            (_, Home::Dialled) => {
                let until = now.saturating_add(us(RETURN_DRAIN));
                self.way.home = Home::Stands { since, until };
            }
            _ => {}
        }
    }

    /// There is no connection to the first of the list; it is tried another time.
    pub fn probe_failed(&mut self, problem: String, now: i64) {
        if self.way.home != Home::Dialled {
            return;
        }
        self.way.home = Home::Apart;
        if self.phase == Phase::Dialling {
            self.lost(problem);
        } else if self.way.welcomed {
            // The session with another stands, so this can be told.
            let _ = self.way.route.on_failed(now, 0);
        }
    }

    /// It is apart: whom to go to next, and when. `pause`: how long to let be who failed.
    pub(super) fn turn_to_next(&mut self, now: i64, pause: i64) -> Phase {
        let had_session = std::mem::take(&mut self.way.welcomed);
        let told = match had_session {
            true => self.way.route.on_lost(now, pause),
            false => self.way.route.on_failed(now, pause),
        };
        debug_assert!(told.is_ok(), "{told:?}");
        match std::mem::replace(&mut self.way.home, Home::Apart) {
            Home::Stands { since, .. } => Phase::Adopting(since),
            Home::Dialled => {
                self.way.home = Home::Dialled;
                Phase::Dialling
            }
            Home::Apart => Phase::Waiting(self.way.route.poll_timeout().unwrap_or(now)),
        }
    }

    /// The wait is over: the route is told that this one is dialled.
    pub(super) fn dial(&mut self, now: i64) -> Do {
        // What is being drained does not wait as long as the route would.
        let due = self.way.route.poll_timeout().unwrap_or(now);
        let _ = self.way.route.poll(now.max(due));
        self.phase = Phase::Dialling;
        Do::Dial
    }

    /// The connection that was [probed](Self::probed) takes the place of the one before.
    pub(super) fn adopt(&mut self, since: i64) -> Do {
        self.phase = Phase::Connected(since.saturating_add(us(HANDSHAKE_TIMEOUT)));
        Do::Adopt
    }

    /// What the route makes of a session in which there is nothing to send just now: perhaps it is
    /// left, or home is looked for.
    pub(super) fn look_around(&mut self, now: i64) -> Option<Do> {
        if !self.way.is_choice() {
            return None;
        }
        if let Home::Stands { until, .. } = self.way.home
            && (self.sender.in_flight() == 0 || until <= now)
        {
            info!(target = self.way.address(), "the uplink returns home");
            return Some(self.leave());
        }
        match self.way.route.poll(now) {
            RouteStep::Leave => {
                self.disconnected("the aggregator takes nothing".to_owned());
                Some(self.leave())
            }
            RouteStep::Probe => {
                self.way.home = Home::Dialled;
                Some(Do::Probe)
            }
            RouteStep::Dial(_) | RouteStep::Wait => None,
        }
    }

    fn leave(&mut self) -> Do {
        self.status.send_modify(|status| status.connected = false);
        self.part(Phase::Apart);
        Do::Leave(goodbye())
    }

    /// Whether the cursor has to be kept before anything is sent: this journal may hold from now on
    /// what it did not acknowledge.
    pub(super) fn must_save_first(&self) -> bool {
        let open = self.phase == Phase::Open && self.way.is_choice();
        open && self.sender.needs_saving() && !planted!(SentBeforeSaved)
    }
}
