//! Names of things: agents, buffers, lanes, batches, and the proofs of batches.
//!
//! Plain values. Nothing here makes a random number: who needs a new id is handed one.

use crate::limits::NAME_BYTES_MAX;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not a UUID.
    #[error("`{0}` is not a UUID: expected 32 hexadecimal digits, with or without hyphens")]
    Uuid(String),
    /// The name is empty, too long, or holds a character that no name may hold.
    #[error(
        "`{0}` is not a usable name: expected 1 to {NAME_BYTES_MAX} bytes without control \
         characters or `/`"
    )]
    Name(String),
    /// The URI names no agent.
    #[error("`{0}` names no agent: expected spiffe://<trust domain>/<tenant>/agent/<uuid>")]
    Spiffe(String),
    /// The text names no lane.
    #[error("`{0}` is not a lane: expected series, alerts, telemetry, aggregates or events")]
    Lane(String),
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// A 128-bit identity, printed as 32 hexadecimal digits.
macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex16(text).map(Self).ok_or_else(|| IdError::Uuid(text.to_owned()))
            }
        }
    };
}

id16! {
    /// One life of an agent's storage, new at every open: a life counter (first 8 bytes, big
    /// endian, so that buffers sort by age) and 64 random bits.
    BufferId
}

id16! {
    /// One life of an aggregator's journal.
    LogId
}

id16! {
    /// The number an agent was given at enrolment, never used again.
    AgentUuid
}

impl LogId {
    /// Stands for journals whose names are forgotten; no journal has it.
    pub const FORGOTTEN: Self = Self([0; 16]);
}

impl BufferId {
    /// The buffer of life `life`, told apart from a clone's by `random`.
    pub fn new(life: u64, random: u64) -> Self {
        Self(((u128::from(life) << 64) | u128::from(random)).to_be_bytes())
    }

    /// Which life of the storage this is; grows by one at every open.
    pub fn life(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }
}

/// Who an agent is: its tenant, and the UUID of its enrolment. Its name is only a label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId {
    tenant: Arc<str>,
    uuid: AgentUuid,
}

impl AgentId {
    /// An agent of `tenant`.
    ///
    /// # Errors
    /// [`IdError::Name`] when the tenant is not a [usable name](is_name).
    pub fn new(tenant: &str, uuid: AgentUuid) -> Result<Self, IdError> {
        if !is_name(tenant) || tenant.contains('/') {
            return Err(IdError::Name(tenant.to_owned()));
        }
        Ok(Self {
            tenant: tenant.into(),
            uuid,
        })
    }

    /// The tenant that the agent belongs to.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The UUID given at enrolment.
    pub fn uuid(&self) -> AgentUuid {
        self.uuid
    }

    /// The agent as the URI that its certificate carries.
    pub fn spiffe(&self, trust_domain: &str) -> String {
        format!(
            "spiffe://{trust_domain}/{}/agent/{}",
            self.tenant, self.uuid
        )
    }

    /// The trust domain and the agent that a certificate's URI names.
    ///
    /// # Errors
    /// [`IdError::Spiffe`].
    pub fn from_spiffe(uri: &str) -> Result<(&str, Self), IdError> {
        let bad = || IdError::Spiffe(uri.to_owned());
        let mut parts = uri.strip_prefix("spiffe://").ok_or_else(bad)?.split('/');
        let (Some(domain), Some(tenant), Some("agent"), Some(uuid), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(bad());
        };
        let uuid = uuid.parse().map_err(|_| bad())?;
        Ok((domain, Self::new(tenant, uuid).map_err(|_| bad())?))
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.uuid)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

/// Whether `text` may name a device, metric, unit or tenant: 1 to 256 bytes, no control character.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// A stream of batches that is numbered and ordered apart, with its own spool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Definitions of series: sent before whatever uses them, never shed.
    Series = 0,
    /// What detectors found.
    Alerts = 1,
    /// Readings.
    Telemetry = 2,
    /// Windows over readings.
    Aggregates = 3,
    /// What happened to devices and gateway, wills among them.
    Events = 4,
}

impl Lane {
    /// Every lane, by code.
    pub const ALL: [Self; 5] = [
        Self::Series,
        Self::Alerts,
        Self::Telemetry,
        Self::Aggregates,
        Self::Events,
    ];

    /// The lane's code on the wire and on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The lane with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The lane's name, as in paths and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Alerts => "alerts",
            Self::Telemetry => "telemetry",
            Self::Aggregates => "aggregates",
            Self::Events => "events",
        }
    }

    /// Whether a batch of it may name its series itself: what few series have, or many seldom.
    pub fn may_name_itself(self) -> bool {
        matches!(self, Self::Alerts | Self::Aggregates | Self::Events)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Lane {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let found = Self::ALL.into_iter().find(|lane| lane.name() == text);
        found.ok_or_else(|| IdError::Lane(text.to_owned()))
    }
}

/// One lane of one buffer: what is numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneKey {
    /// The life of the agent's storage.
    pub buffer: BufferId,
    /// The lane.
    pub lane: Lane,
}

/// The name of a batch within its agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchKey {
    /// The life of the agent's storage.
    pub buffer: BufferId,
    /// The lane.
    pub lane: Lane,
    /// The number, from 0, within buffer and lane.
    pub number: u64,
}

impl BatchKey {
    /// The lane that the batch stands in.
    pub fn lane_key(self) -> LaneKey {
        LaneKey {
            buffer: self.buffer,
            lane: self.lane,
        }
    }
}

impl fmt::Display for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.buffer, self.lane, self.number)
    }
}

/// A row of the lane `series`: dense within a buffer from 0, never redefined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesId(pub u32);

/// BLAKE3 over the bytes of a sealed batch: its proof.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchHash(pub [u8; 32]);

impl BatchHash {
    /// The hash of these sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }

    /// What the batch adds to a [`HashSum`]: the first 128 bits, little endian.
    pub fn addend(self) -> u128 {
        u128::from_le_bytes(std::array::from_fn(|i| self.0.get(i).copied().unwrap_or(0)))
    }

    /// The first 64 bits, little endian: enough to tell batches of one lane apart.
    pub fn short(self) -> u64 {
        self.addend() as u64
    }
}

impl fmt::Display for BatchHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for BatchHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchHash({self})")
    }
}

/// The sum, modulo 2^128, of the [addends](BatchHash::addend) of a set of batches. It does not
/// depend on their order, and a batch that is missing, doubled or changed shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HashSum(pub u128);

impl HashSum {
    /// The sum with one more batch.
    #[must_use]
    pub fn with(self, hash: BatchHash) -> Self {
        Self(self.0.wrapping_add(hash.addend()))
    }

    /// The sum with `numbers` more that the same batch stands for.
    #[must_use]
    pub fn with_each(self, hash: BatchHash, numbers: u64) -> Self {
        let addend = hash.addend().wrapping_mul(u128::from(numbers));
        Self(self.0.wrapping_add(addend))
    }

    /// The sum over both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// One authenticated connection that may send; a greater one fences all smaller ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_sort_by_life_and_survive_printing() {
        let old = BufferId::new(1, u64::MAX);
        let new = BufferId::new(2, 0);
        assert!(old < new);
        assert_eq!(new.life(), 2);
        assert_eq!(new.to_string().parse(), Ok(new));
    }

    #[test]
    fn lanes_survive_code_and_name() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_code(lane.code()), Some(lane));
            assert_eq!(lane.name().parse(), Ok(lane));
        }
        assert_eq!(Lane::from_code(5), None);
    }

    #[test]
    fn an_agent_survives_its_certificate() {
        let agent = AgentId::new("acme", AgentUuid([3; 16])).expect("a good tenant");
        let uri = agent.spiffe("example.org");
        assert_eq!(AgentId::from_spiffe(&uri), Ok(("example.org", agent)));
        for bad in [
            "",
            "spiffe://d/t/agent",
            "spiffe://d/t/device/0",
            "https://d/t/agent/0",
        ] {
            assert!(AgentId::from_spiffe(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_bounded_and_without_control_characters() {
        assert!(is_name("pump-7/bearing \u{b0}C"));
        for bad in ["", "a\u{0}b", "a\nb", &"x".repeat(257)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(AgentId::new("a/b", AgentUuid([0; 16])).is_err());
    }

    #[test]
    fn a_hash_sum_ignores_order_but_not_copies() {
        let (a, b) = (BatchHash::of(b"a"), BatchHash::of(b"b"));
        let sum = HashSum::default().with(a).with(b);
        assert_eq!(sum, HashSum::default().with(b).with(a));
        assert_ne!(sum, HashSum::default().with(a).with(a));
        assert_ne!(sum, sum.with(a));
    }
}
