//! From CONNECT to CONNACK: what a client asks for, and what it is granted. Who decides is told
//! the arrival, and may take its time: the client is not listened to meanwhile.

use super::super::access::acl::Rights;
use super::super::access::password::Password;
use super::super::codec::{Answer, Connect, Header, Refusal, Version, read_connect};
use super::publication::is_reserved;
use super::{Batch, Connection, Fault, Message, Now, Parked, Phase};
use crate::decode::UserProperties;
use crate::limits::{
    PASSWORD_BYTES_MAX, SERVER_KEEP_ALIVE_S, SESSION_EXPIRY_S_MAX, USER_NAME_BYTES_MAX,
};
use crate::wal::{Qos, Session};
use std::time::Duration;

/// Who would be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Arrival {
    /// Its identifier: its own, or one that it is given.
    pub client_id: Box<str>,
    /// Its session's name in the log.
    pub session: u64,
    /// Whether it wants a session of its own, whatever was before.
    pub clean: bool,
    /// Seconds that its session is to be kept once it is gone; `u32::MAX`: for ever.
    pub session_expiry_s: u32,
    /// Who it says it is.
    pub user: Option<Box<str>>,
    /// What it proves that with.
    pub password: Option<Password>,
}

impl Arrival {
    /// Bytes of memory that it holds.
    pub(in crate::source) fn held_bytes(&self) -> usize {
        let user = self.user.as_deref().map_or(0, str::len);
        let password = self.password.as_ref().map_or(0, |held| held.bytes().len());
        size_of::<Self>() + self.client_id.len() + user + password
    }
}

/// What is to be said of a client once it is lost; not of one that takes its leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Will {
    session: u64,
    v5: bool,
    retain: bool,
    topic: Box<str>,
    payload: Box<[u8]>,
    /// How long its client may take to come back.
    pub delay: Duration,
}

impl Will {
    fn of(connect: &Connect<'_>) -> Option<Box<Self>> {
        let will = connect.will?;
        Some(Box::new(Self {
            session: 0,
            v5: connect.version == Version::V5,
            retain: will.retain,
            topic: will.topic.into(),
            payload: will.payload.into(),
            delay: Duration::from_secs(will.delay_s.into()),
        }))
    }

    pub(in crate::source) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len()
    }

    pub(in crate::source) fn topic(&self) -> &str {
        &self.topic
    }

    /// Adds it to `batch`, as lost at `unix_us`.
    pub(in crate::source) fn write(&self, unix_us: i64, batch: &mut Batch) {
        batch.message(&Message {
            session: self.session,
            qos: Qos::AtMostOnce,
            dup: false,
            retain: self.retain,
            v5: self.v5,
            will: true,
            broker: false,
            packet_id: 0,
            received_time: unix_us,
            topic: &self.topic,
            // They were written before what it tells of.
            properties: UserProperties::NONE,
            payload: &self.payload,
        });
    }
}

/// What becomes of an arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Admission {
    /// It is let in.
    Granted {
        /// Whether there is a session of it already.
        session_present: bool,
        /// Seconds that its session is kept once it is gone: at most what it asked for.
        session_expiry_s: u32,
        /// Whether the log does not know that yet.
        session_changed: bool,
        /// What it was subscribed to in that session.
        subscriptions: Option<Box<Parked>>,
    },
    /// It is not: the MQTT 5 code of CONNACK, and a short stable word for the metrics.
    Refused { code: u8, reason: &'static str },
}

/// What CONNACK will say, kept until the client is admitted.
#[derive(Debug)]
pub(super) struct Pending {
    assigned: Option<Box<str>>,
    /// The keep alive that it is told to use instead of its own.
    keep_alive_s: Option<u16>,
    session_expiry_s: u32,
}

impl Connection {
    pub(super) fn connect(&mut self, header: Header, body: &[u8], now: Now) {
        match read_connect(header.flags(), body) {
            Ok(connect) => self.arrive(&connect, now),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn arrive(&mut self, connect: &Connect<'_>, now: Now) {
        if connect.will.is_some_and(|will| is_reserved(will.topic)) {
            self.version = connect.version;
            self.answer(&Answer::Refused { code: 0x87 });
            return self.over("will_topic");
        }
        let long = |bytes: Option<usize>, most| bytes.is_some_and(|bytes| bytes > most);
        let user_bytes = connect.username.map(str::len);
        let password_bytes = connect.password.map(<[u8]>::len);
        if long(user_bytes, USER_NAME_BYTES_MAX) || long(password_bytes, PASSWORD_BYTES_MAX) {
            // Nobody's, and not to be held while others are decided about.
            self.version = connect.version;
            self.answer(&Answer::Refused { code: 0x86 });
            return self.over("credentials");
        }
        self.heard = now.instant;
        self.version = connect.version;
        self.reasons = !connect.no_problem_information;
        self.answer_bytes_max = connect
            .packet_bytes_max
            .map_or(usize::MAX, |max| max as usize);
        self.takes_at_once(connect.version, connect.receive_maximum);
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| format!("tributary-{:032x}", self.assigned).into_boxed_str());
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        self.session = Message::session_of(client_id);
        self.will = Will::of(connect);
        if let Some(will) = &mut self.will {
            will.session = self.session;
        }
        let wanted = connect.keep_alive_s;
        let capped = connect.version == Version::V5 && !(1..=SERVER_KEEP_ALIVE_S).contains(&wanted);
        let keep_alive_s = if capped { SERVER_KEEP_ALIVE_S } else { wanted };
        // Section 3.1.2.10: one and a half times the keep alive; 0 turns it off.
        self.keep_alive =
            (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500));
        let session_expiry_s = match connect.version {
            // Section 3.1.2.4 [3.1.1]: kept for as long as the server keeps any.
            Version::V4 if !connect.clean => u32::MAX,
            Version::V4 => 0,
            Version::V5 => connect.session_expiry_s,
        };
        self.arrived = Some(Box::new(Arrival {
            client_id: client_id.into(),
            session: self.session,
            clean: connect.clean,
            session_expiry_s,
            user: connect.username.map(Into::into),
            password: connect.password.map(|bytes| Password::new(bytes.to_vec())),
        }));
        self.phase = Phase::Arriving(Box::new(Pending {
            assigned,
            keep_alive_s: capped.then_some(keep_alive_s),
            session_expiry_s,
        }));
    }

    /// Who would be let in, once: [`handle_admission`](Self::handle_admission) is awaited.
    pub(in crate::source) fn take_arrival(&mut self) -> Option<Box<Arrival>> {
        self.arrived.take()
    }

    /// Who the client is, before it is admitted: what it may do, and what its session is called.
    /// Whether its will may be published.
    pub(in crate::source) fn handle_identity(&mut self, session: u64, rights: Rights) -> bool {
        self.session = session;
        let mut may = true;
        if let Some(will) = &mut self.will {
            will.session = session;
            may = rights.allow(&will.topic);
        }
        self.rights = Some(Box::new(rights));
        may
    }

    /// The client is let in, or not. What it sent behind its CONNECT is taken now.
    pub(in crate::source) fn handle_admission(
        &mut self,
        admission: Admission,
        now: Now,
        batch: &mut Batch,
    ) {
        let Phase::Arriving(pending) = &mut self.phase else {
            return;
        };
        let assigned = pending.assigned.take();
        let keep_alive_s = pending.keep_alive_s;
        let asked_s = pending.session_expiry_s;
        match admission {
            Admission::Granted {
                session_present,
                session_expiry_s,
                session_changed,
                subscriptions,
            } => {
                self.phase = Phase::Open;
                // What can't be given back as it was is no session that is present.
                let resumed = subscriptions.is_none_or(|parked| self.resume_reading(&parked));
                self.session_expiry_s = Some(session_expiry_s);
                self.answer(&Answer::Welcome {
                    session_present: session_present && resumed,
                    assigned: assigned.as_deref(),
                    keep_alive_s,
                    session_expiry_s: (session_expiry_s != asked_s).then_some(session_expiry_s),
                });
                if session_changed || !resumed {
                    self.keep_session(now, batch);
                }
                self.handle_bytes(&[], now, batch);
            }
            Admission::Refused { code, reason } => {
                self.answer(&Answer::Refused { code });
                self.over(reason);
            }
        }
    }

    /// Lets in nobody who could not be decided about in time, or held meanwhile: it may come again.
    pub(super) fn turn_away(&mut self, reason: &'static str) {
        self.answer(&Answer::Refused { code: 0x89 });
        self.over(reason);
    }

    /// Writes down how long the session is kept.
    pub(super) fn keep_session(&mut self, now: Now, batch: &mut Batch) {
        // The log knows no subscriptions: a session that has some ends with the agent's life.
        let kept_s = self.session_expiry_s.filter(|_| !self.has_subscriptions());
        batch.session(&Session {
            session: self.session,
            expiry_s: kept_s.unwrap_or(0),
            time: now.unix_us,
        });
        self.appended += 1;
    }

    /// The client would have its session kept for another time (section 3.14.2.2.2 \[5\]).
    pub(super) fn change_session(
        &mut self,
        expiry_s: u32,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        if self.session_expiry_s == Some(0) && expiry_s != 0 {
            return Err(Fault::Protocol("a session that was to end is to be kept"));
        }
        let expiry_s = expiry_s.min(SESSION_EXPIRY_S_MAX);
        if self.session_expiry_s != Some(expiry_s) {
            self.session_expiry_s = Some(expiry_s);
            self.keep_session(now, batch);
        }
        Ok(())
    }

    /// What its client may do; `None` where nobody has to say who they are.
    pub(in crate::source) fn rights(&self) -> Option<&Rights> {
        self.rights.as_deref()
    }

    /// The session's name in the log.
    pub(in crate::source) fn session(&self) -> u64 {
        self.session
    }

    /// How long the session is kept once the connection is over; `None` if it never was let in.
    pub(in crate::source) fn session_expiry_s(&self) -> Option<u32> {
        self.session_expiry_s
    }

    /// What is to be said of the client, if it was lost; once.
    pub(in crate::source) fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    fn refuse(&mut self, refusal: Refusal) {
        let (version, code, reason) = match refusal {
            Refusal::Level { newer } => {
                let version = if newer { Version::V5 } else { Version::V4 };
                (Some(version), 0x84, "protocol_version")
            }
            Refusal::ClientId(version) => (Some(version), 0x85, "client_id"),
            Refusal::Authentication => (Some(Version::V5), 0x8c, "authentication"),
            // Section 3.1.4 [3.1.1]: a malformed CONNECT gets no CONNACK.
            Refusal::Fault(version, fault) => (
                version.filter(|v| *v == Version::V5),
                fault.code(),
                fault.reason(),
            ),
        };
        if let Some(version) = version {
            self.version = version;
            self.answer(&Answer::Refused { code });
        }
        self.over(reason);
    }
}
