//! Signs that an agent is more than one machine: a copy of its disk, an older image of it, or two
//! machines with one certificate. Told what sessions and batches say, and the time; it keeps
//! nothing apart and refuses nobody. That does the ledger, by buffer, number and hash.

use crate::limits::{
    TWIN_AGENTS_LABELLED_MAX, TWIN_AGENTS_MAX, TWIN_ALARM_EVERY_US, TWIN_BUFFERS_KEPT,
    TWIN_FENCES_WITHIN_US,
};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use tributary_protocol::ids::{AgentId, BufferId};

/// What was seen of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sign {
    /// It fills a buffer of a life that another buffer has as well, or of an earlier one than it
    /// had: it runs from a copy or an older image of its disk, or has a new one.
    Copy,
    /// It fills a buffer again that another one had followed: two machines take turns.
    Turns,
    /// A session heard that a newer one had begun: somebody was still there.
    Fenced,
    /// A batch contradicts what is held under its number.
    Conflict,
}

impl Sign {
    /// Every sign.
    pub const ALL: [Self; 4] = [Self::Copy, Self::Turns, Self::Fenced, Self::Conflict];

    /// As metrics and status have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Turns => "turns",
            Self::Fenced => "fenced",
            Self::Conflict => "conflict",
        }
    }

    fn means(self) -> &'static str {
        match self {
            Self::Copy => "it runs from a copy or an older image of its disk, or got a new one",
            Self::Turns => "two machines with this identity take turns",
            Self::Fenced => "a newer session ended one whose machine was still there",
            Self::Conflict => "a batch contradicts what is held under its number",
        }
    }
}

/// An agent of which there were signs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TwinStatus {
    /// Tenant and UUID.
    pub agent: String,
    /// How often it was on a copy, or an older image.
    pub copy: u64,
    /// How often two machines took turns.
    pub turns: u64,
    /// How often a session heard that it was fenced.
    pub fenced: u64,
    /// How many batches contradicted what is held.
    pub conflict: u64,
    /// When there was the last sign: microseconds since 1970, UTC.
    pub last_us: i64,
}

/// What to say aloud: this is an alarm, and has not been said for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "somebody has to hear of it"]
pub struct Alarm {
    /// The sign that gave it.
    pub sign: Sign,
    /// How many of all kinds there were since the last one.
    pub signs: u64,
}

impl Alarm {
    /// Says it, to the log.
    pub fn say(self, agent: &AgentId) {
        let (sign, signs, means) = (self.sign.name(), self.signs, self.sign.means());
        if self.sign == Sign::Copy {
            tracing::warn!(%agent, sign, signs, "{means}: if its old storage still runs somewhere, \
                stop one of both and enrol it anew; see docs/identity.md");
            return;
        }
        tracing::error!(%agent, sign, signs, "one identity on two machines? {means}: stop one of \
            them and give it an identity of its own; see docs/identity.md. Nothing of either is \
            lost: what contradicts is in quarantine");
    }
}

/// Signs by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    copy: u64,
    turns: u64,
    fenced: u64,
    conflict: u64,
}

impl Counts {
    fn of(&mut self, sign: Sign) -> &mut u64 {
        match sign {
            Sign::Copy => &mut self.copy,
            Sign::Turns => &mut self.turns,
            Sign::Fenced => &mut self.fenced,
            Sign::Conflict => &mut self.conflict,
        }
    }
}

/// What is known of one agent.
#[derive(Debug, Default)]
struct Seen {
    /// The buffers that it filled last, the newest last.
    filled: VecDeque<BufferId>,
    counts: Counts,
    /// Metrics name it.
    labelled: bool,
    last_us: i64,
    fenced_us: Option<i64>,
    said_us: Option<i64>,
    unsaid: u64,
}

impl Seen {
    fn has_signs(&self) -> bool {
        self.counts != Counts::default()
    }

    /// What it means that the agent fills this buffer. `other`: one of the same life.
    fn fill(&mut self, buffer: BufferId, other: Option<BufferId>) -> Option<Sign> {
        let last = self.filled.back().copied();
        if last == Some(buffer) {
            return None;
        }
        let before = self.filled.iter().position(|known| *known == buffer);
        if let Some(before) = before {
            self.filled.remove(before);
        } else if self.filled.len() >= TWIN_BUFFERS_KEPT {
            self.filled.pop_front();
        }
        self.filled.push_back(buffer);
        let not_newer = last.is_some_and(|last| last.life() >= buffer.life());
        match before {
            Some(_) => Some(Sign::Turns),
            None => (other.is_some() || not_newer).then_some(Sign::Copy),
        }
    }

    /// Notes it; whether it is to be said.
    fn note(&mut self, sign: Sign, now: i64) -> Option<Alarm> {
        *self.counts.of(sign) += 1;
        self.last_us = now;
        self.unsaid += 1;
        let since = |at: i64| now.saturating_sub(at);
        // Once may be a machine that changed its address.
        let again = self
            .fenced_us
            .is_some_and(|at| since(at) < TWIN_FENCES_WITHIN_US);
        if sign == Sign::Fenced {
            self.fenced_us = Some(now);
            if !again {
                return None;
            }
        }
        if self
            .said_us
            .is_some_and(|at| since(at) < TWIN_ALARM_EVERY_US)
        {
            return None;
        }
        self.said_us = Some(now);
        let signs = std::mem::take(&mut self.unsaid);
        Some(Alarm { sign, signs })
    }
}

/// Signs of all agents since the start.
#[derive(Debug, Default)]
pub struct Twins {
    agents: HashMap<AgentId, Seen>,
    /// How many of them metrics name.
    labelled: usize,
}

impl Twins {
    /// A session begins of an agent that fills this buffer; `other` is one of the same life that
    /// the ledger knows. Times are microseconds since 1970.
    pub fn on_hello(
        &mut self,
        agent: &AgentId,
        (buffer, other): (BufferId, Option<BufferId>),
        now: i64,
    ) -> (Option<Sign>, Option<Alarm>) {
        let Some(seen) = self.of(agent) else {
            return (None, None);
        };
        let sign = seen.fill(buffer, other);
        let alarm = sign.and_then(|sign| seen.note(sign, now));
        (sign, alarm)
    }

    /// There was this sign.
    pub fn on_sign(&mut self, agent: &AgentId, sign: Sign, now: i64) -> Option<Alarm> {
        self.of(agent)?.note(sign, now)
    }

    /// The agent, if there is room for one more.
    fn of(&mut self, agent: &AgentId) -> Option<&mut Seen> {
        if self.agents.len() >= TWIN_AGENTS_MAX && !self.agents.contains_key(agent) {
            // Those without a sign give way: all that is lost is what they filled.
            self.agents.retain(|_, seen| seen.has_signs());
            if self.agents.len() >= TWIN_AGENTS_MAX {
                return None;
            }
        }
        Some(self.agents.entry(agent.clone()).or_default())
    }

    /// What metrics call it: of many agents the first by name, and all others together.
    pub fn label(&mut self, agent: &AgentId) -> String {
        let has_room = self.labelled < TWIN_AGENTS_LABELLED_MAX;
        match self.agents.get_mut(agent) {
            Some(seen) if seen.labelled => agent.to_string(),
            Some(seen) if has_room => {
                seen.labelled = true;
                self.labelled += 1;
                agent.to_string()
            }
            _ => "others".to_owned(),
        }
    }

    /// How many agents there were signs of.
    pub fn count(&self) -> usize {
        self.agents.values().filter(|seen| seen.has_signs()).count()
    }

    /// Agents of which there were signs, the latest first, `most` of them.
    pub fn list(&self, most: usize) -> Vec<TwinStatus> {
        let signed = self.agents.iter().filter(|(_, seen)| seen.has_signs());
        let mut all: Vec<_> = signed.collect();
        all.sort_by_key(|(agent, seen)| (std::cmp::Reverse(seen.last_us), *agent));
        let all = all.into_iter().take(most);
        all.map(|(agent, seen)| {
            let Counts {
                copy,
                turns,
                fenced,
                conflict,
            } = seen.counts;
            TwinStatus {
                agent: agent.to_string(),
                copy,
                turns,
                fenced,
                conflict,
                last_us: seen.last_us,
            }
        })
        .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tributary_protocol::ids::AgentUuid;

    const MINUTE: i64 = 60_000_000;

    fn agent(n: u32) -> AgentId {
        let mut uuid = [0; 16];
        uuid[..4].copy_from_slice(&n.to_be_bytes());
        AgentId::new("acme", AgentUuid(uuid)).unwrap()
    }

    fn fills(twins: &mut Twins, buffers: &[(u64, u64)]) -> Vec<Option<Sign>> {
        let fill = |(life, salt): &(u64, u64)| {
            let buffer = BufferId::new(*life, *salt);
            twins.on_hello(&agent(1), (buffer, None), 0).0
        };
        buffers.iter().map(fill).collect()
    }

    #[test]
    fn one_machine_gives_no_sign_however_often_it_starts_and_its_link_breaks() {
        let mut twins = Twins::default();
        let lives: Vec<_> = (1..50).flat_map(|life| [(life, 7), (life, 7)]).collect();
        assert!(fills(&mut twins, &lives).iter().all(Option::is_none));
        assert_eq!((twins.count(), twins.list(9)), (0, vec![]));
    }

    #[test]
    fn copies_images_and_new_disks_are_told_from_machines_that_take_turns() {
        let copy = Some(Sign::Copy);
        let turns = Some(Sign::Turns);
        let of = |buffers: &[(u64, u64)]| fills(&mut Twins::default(), buffers);
        // A clone begins the same life by another name; then each comes back.
        let clone = [(8, 1), (8, 2), (8, 1), (8, 2), (9, 2)];
        assert_eq!(of(&clone), [None, copy, turns, turns, None]);
        // An image of life 6, put back once, begins life 7 anew and goes on.
        assert_eq!(of(&[(9, 1), (7, 2), (8, 3)]), [None, copy, None]);
        // A new disk begins at 1.
        assert_eq!(of(&[(9, 1), (1, 2), (2, 3)]), [None, copy, None]);
        // What the aggregator saw before its restart, the ledger knows.
        let mut twins = Twins::default();
        let (ours, known) = (BufferId::new(8, 2), BufferId::new(8, 1));
        let (sign, alarm) = twins.on_hello(&agent(1), (ours, Some(known)), 5);
        assert_eq!(sign, copy);
        assert_eq!(alarm.map(|it| (it.sign, it.signs)), Some((Sign::Copy, 1)));
        // It comes back to the same buffer: that was said.
        assert_eq!(
            twins.on_hello(&agent(1), (ours, Some(known)), 6),
            (None, None)
        );
    }

    #[test]
    fn an_alarm_is_said_once_in_a_while_and_counts_what_it_did_not_say() {
        let mut twins = Twins::default();
        let mut said = Vec::new();
        for minute in 0..30 {
            let alarm = twins.on_sign(&agent(1), Sign::Conflict, minute * MINUTE);
            said.extend(alarm.map(|alarm| (minute, alarm.signs)));
        }
        assert_eq!(said, [(0, 1), (10, 10), (20, 10)]);
        let listed = twins.list(9);
        assert_eq!((listed[0].conflict, listed[0].last_us), (30, 29 * MINUTE));
    }

    #[test]
    fn one_fence_that_was_heard_is_noted_and_the_second_in_an_hour_an_alarm() {
        let mut twins = Twins::default();
        let mut fenced = |minute: i64| {
            let alarm = twins.on_sign(&agent(1), Sign::Fenced, minute * MINUTE);
            alarm.is_some()
        };
        assert!(!fenced(0));
        assert!(!fenced(61), "another hour");
        assert!(fenced(62));
        assert_eq!(twins.list(1)[0].fenced, 3);
    }

    #[test]
    fn agents_without_a_sign_give_way_and_those_with_one_stay() {
        let mut twins = Twins::default();
        let buffer = BufferId::new(1, 1);
        let _ = twins.on_sign(&agent(0), Sign::Conflict, 1);
        for n in 1..=TWIN_AGENTS_MAX as u32 + 5 {
            let _ = twins.on_hello(&agent(n), (buffer, None), 2);
        }
        assert!(twins.agents.len() <= TWIN_AGENTS_MAX);
        assert_eq!(twins.list(9).len(), 1);
        for n in 1..=TWIN_AGENTS_MAX as u32 + 5 {
            let _ = twins.on_sign(&agent(n), Sign::Conflict, 3);
        }
        assert_eq!(twins.agents.len(), TWIN_AGENTS_MAX, "and no more");
        assert_eq!(twins.list(9).len(), 9, "the latest");
        let labels: std::collections::BTreeSet<_> = (1..=TWIN_AGENTS_MAX as u32)
            .map(|n| twins.label(&agent(n)))
            .collect();
        assert_eq!(labels.len(), TWIN_AGENTS_LABELLED_MAX + 1, "and all others");
        assert_eq!(twins.label(&agent(1)), agent(1).to_string());
    }
}
