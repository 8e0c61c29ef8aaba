//! Where the agent's end of a session stands, as a table.

use super::Illegal;

/// Where the agent's end stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SenderState {
    /// No connection.
    Idle,
    /// `Hello` is sent; `Welcome` is awaited.
    Greeting,
    /// Batches may be sent.
    Sending,
}

/// What can happen to the agent's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SenderEvent {
    /// A connection stands.
    Connected,
    /// A page of `Welcome`, with more to follow.
    WelcomePage,
    /// The last page of `Welcome`.
    Welcome,
    /// An acknowledgement.
    Ack,
    /// The connection is gone, or was refused.
    Lost,
}

impl SenderState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Greeting, Self::Sending];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`]: the aggregator broke the protocol.
    pub fn on(self, event: SenderEvent) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Idle, SenderEvent::Connected) => Ok(Self::Greeting),
            (Self::Greeting, SenderEvent::WelcomePage) => Ok(Self::Greeting),
            (Self::Greeting, SenderEvent::Welcome) => Ok(Self::Sending),
            (Self::Sending, SenderEvent::Ack) => Ok(Self::Sending),
            (_, SenderEvent::Lost) => Ok(Self::Idle),
            (state, event) => Err(Illegal {
                state: state.name(),
                event: event.name(),
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Idle => "not connected",
            Self::Greeting => "waiting for Welcome",
            Self::Sending => "sending",
        }
    }
}

impl SenderEvent {
    /// Every event.
    pub const ALL: [Self; 5] = [
        Self::Connected,
        Self::WelcomePage,
        Self::Welcome,
        Self::Ack,
        Self::Lost,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Connected => "a connection",
            Self::WelcomePage => "a page of Welcome",
            Self::Welcome => "a Welcome",
            Self::Ack => "an Ack",
            Self::Lost => "a loss of the connection",
        }
    }
}
