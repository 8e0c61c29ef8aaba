//! Both ends of a session, as state machines that are told what happens and say what to do next.
//! Neither owns a socket, a clock or a batch; the shells around them do.

mod receiver;
mod route;
mod sender;

pub use receiver::{Receiver, ReceiverEvent, ReceiverState};
pub use route::{Route, RouteEvent, RouteState, RouteStep, RouteTimes};
pub use sender::{
    AckedTo, Journal, LaneCursor, LaneStart, Lookup, Notice, Outgoing, Place, Sender, SenderCursor,
    SenderEvent, SenderState, Trim, Urgency,
};

/// An event that a state does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{event} is not allowed while {state}")]
pub struct Illegal {
    /// The state.
    pub state: &'static str,
    /// The event.
    pub event: &'static str,
}

#[cfg(test)]
mod tests;
