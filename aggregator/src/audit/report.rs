//! What an audit says: as JSON, whose fields are only added, and as text for people.

use crate::keeper::record::RecordKind;
use crate::limits::{AUDIT_FINDINGS_MAX, AUDIT_SPANS_LISTED_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use tributary_protocol::ids::{AgentId, LaneKey};

/// The layout of [`Report`]; fields are only added.
pub const REPORT_VERSION: u32 = 1;

/// Numbers [first, end).
pub type Span = (u64, u64);

/// What an audit of one aggregator found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The layout.
    pub version: u32,
    /// The data directory.
    pub data_dir: String,
    /// The journal's life.
    pub log: String,
    /// What made it.
    pub software: String,
    /// When it was done: microseconds since 1970, UTC.
    pub at_us: i64,
    /// When the look began that it tells of: everything that was durable by then is in it. 0 where
    /// an earlier version made it.
    #[serde(default)]
    pub began_us: i64,
    /// Whether every row was read.
    pub deep: bool,
    /// The entries that the journal still holds.
    pub journal: Span,
    /// Everything below is in the lake.
    pub lake_position: u64,
    /// Files of the lake that this journal gave.
    pub lake_files: u64,
    /// Every lane, by agent and buffer.
    pub lanes: Vec<LaneReport>,
    /// Repeats that were refused: of these no file says anything.
    pub repeats_refused: String,
    /// Batches that lie in quarantine, those that conflicted among them.
    pub quarantine_files: u64,
    /// Agents that may be two machines: nothing disagrees for that, and somebody should look.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// How many more of these there are.
    #[serde(default)]
    pub alarms_more: u64,
    /// What is worth knowing, and not wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How much more is wrong, of which nothing is said.
    #[serde(default)]
    pub findings_more: u64,
    /// What looked wrong, and changed from look to look while the aggregator went on: nobody knows.
    #[serde(default)]
    pub unsettled: Vec<Finding>,
}

impl Report {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.findings, &self.unsettled)
    }
}

/// What an audit comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All agree.
    Agrees,
    /// Something disagrees.
    Disagrees,
    /// Nothing is known to disagree, and something could not be settled.
    Unsettled,
}

impl Verdict {
    pub(super) fn of(findings: &[Finding], unsettled: &[Finding]) -> Self {
        match (findings, unsettled) {
            ([], []) => Self::Agrees,
            ([], _) => Self::Unsettled,
            _ => Self::Disagrees,
        }
    }
}

/// What is wrong: the first of it, and how much more.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    listed: Vec<Finding>,
    more: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        match self.listed.len() < AUDIT_FINDINGS_MAX {
            true => self.listed.push(finding),
            false => self.more += 1,
        }
    }

    /// So many more are not listed.
    pub(super) fn leave_out(&mut self, more: u64) {
        self.more = self.more.saturating_add(more);
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.leave_out(others.more);
        others.listed.into_iter().for_each(|it| self.push(it));
    }

    pub(super) fn has(&self, finding: &Finding) -> bool {
        self.listed.contains(finding)
    }

    pub(super) fn len(&self) -> u64 {
        self.listed.len() as u64 + self.more
    }

    /// Those that are listed, and how many more there are.
    pub(super) fn into_parts(self) -> (Vec<Finding>, u64) {
        (self.listed, self.more)
    }
}

/// Cuts a list to what a report says of one; how many are left out.
pub(super) fn cut<T>(list: &mut Vec<T>) -> u64 {
    let more = list.len().saturating_sub(AUDIT_SPANS_LISTED_MAX);
    list.truncate(AUDIT_SPANS_LISTED_MAX);
    more as u64
}

/// Numbers that are committed, and the hash sum over them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The lowest.
    pub first: u64,
    /// One past the greatest.
    pub end: u64,
    /// Their hash sum, 32 hexadecimal digits.
    pub hash_sum: String,
}

/// Number and hash sum, as one of the three states them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stated {
    /// How many batches; a gap counts once for each number that it took.
    pub batches: u64,
    /// Their readings, where that is known.
    pub rows: Option<u64>,
    /// Their hash sum, 32 hexadecimal digits.
    pub hash_sum: String,
}

/// A declared loss.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GapReport {
    /// The number that the declaration stands under.
    pub batch: u64,
    /// First number that is lost.
    pub first: u64,
    /// How many numbers.
    pub count: u64,
    /// Readings, if anybody knows.
    pub readings: Option<u64>,
    /// Why.
    pub reason: String,
    /// What is known beside.
    pub detail: String,
}

/// Numbers that another aggregator holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its journal.
    pub log: String,
    /// They.
    pub numbers: Vec<Span>,
}

/// What is known of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaneReport {
    /// Tenant and UUID of the agent, with `/` between.
    pub agent: String,
    /// The buffer.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// What the ledger holds.
    pub committed: Vec<Run>,
    /// Numbers below the greatest one that nobody is known to hold.
    pub missing: Vec<Span>,
    /// What is not held here because other aggregators hold it, as the agent said.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
    /// Everything below was acknowledged by somebody, as the agent said.
    #[serde(default)]
    pub floor: u64,
    /// Declared losses, the first of them.
    pub gaps: Vec<GapReport>,
    /// How many more there are.
    pub gaps_more: u64,
    /// Numbers held by batches that never verified.
    pub quarantined: Vec<Span>,
    /// Numbers of batches that the lake could not write as rows; they lie in `rejected/`.
    pub set_apart: Vec<Span>,
    /// Numbers of which another aggregator may hold the same, or another batch the same messages.
    pub in_doubt: Vec<Span>,
    /// The ledger's number and hash sum.
    pub ledger: Stated,
    /// The journal's, of the entries that it still holds.
    pub journal: Stated,
    /// The lake's; of the lane `series` only its markers tell, and those of all lanes together.
    pub lake: Option<Stated>,
    /// Batches that wait for the next flush of the lake.
    pub waiting: u64,
    /// How many ranges of numbers are left out, of all the lists here.
    #[serde(default)]
    pub ranges_more: u64,
}

impl LaneReport {
    /// Agent, buffer and lane.
    pub(super) fn names(&self) -> [&str; 3] {
        [&self.agent, &self.buffer, &self.lane]
    }
}

/// A sign that an agent is two machines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alarm {
    /// Tenant and UUID, with `/` between.
    pub agent: String,
    /// What there is.
    pub what: String,
    /// What to do.
    pub todo: String,
}

/// Something that is wrong, with what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The agent, if it is one's.
    pub agent: Option<String>,
    /// The buffer.
    pub buffer: Option<String>,
    /// The lane.
    pub lane: Option<String>,
    /// The numbers of the lane, where they are known.
    pub numbers: Vec<Span>,
    /// How many ranges of numbers more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub numbers_more: u64,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub todo: String,
    /// What is the same of it from look to look, where its numbers and words are not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Finding {
    /// One that is no lane's.
    pub fn general(what: String, todo: &str) -> Self {
        Self {
            agent: None,
            buffer: None,
            lane: None,
            numbers: Vec::new(),
            numbers_more: 0,
            what,
            todo: todo.to_owned(),
            about: String::new(),
        }
    }

    /// One of these numbers of a lane.
    pub fn of(
        (agent, key): &(AgentId, LaneKey),
        numbers: Vec<Span>,
        what: String,
        todo: &str,
    ) -> Self {
        let (agent, buffer) = (agent.to_string(), key.buffer.to_string());
        Self::of_names([&agent, &buffer, key.lane.name()], numbers, what, todo)
    }

    /// As [`of`](Self::of), by the names of agent, buffer and lane.
    pub(super) fn of_names(
        [agent, buffer, lane]: [&str; 3],
        mut numbers: Vec<Span>,
        what: String,
        todo: &str,
    ) -> Self {
        Self {
            numbers_more: cut(&mut numbers),
            agent: Some(agent.to_owned()),
            buffer: Some(buffer.to_owned()),
            lane: Some(lane.to_owned()),
            numbers,
            what,
            todo: todo.to_owned(),
            about: String::new(),
        }
    }

    /// With what is the same of it from look to look.
    pub(super) fn about(mut self, about: String) -> Self {
        self.about = about;
        self
    }

    /// Whether both tell of the same, though an aggregator went on from one look to the other.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let lane = |it: &Self| (it.agent.clone(), it.buffer.clone(), it.lane.clone());
        match self.about.is_empty() {
            true => self == other,
            false => lane(self) == lane(other) && self.about == other.about,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(agent), Some(buffer), Some(lane)) = (&self.agent, &self.buffer, &self.lane) {
            write!(f, "{agent} {buffer} {lane}")?;
            if !self.numbers.is_empty() {
                write!(f, " {}", spans(&self.numbers))?;
            }
            if self.numbers_more > 0 {
                write!(f, " and {} ranges more", self.numbers_more)?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}; {}", self.what, self.todo)
    }
}

/// Numbers as text: `3..7, 9..10`; not all where there are many.
pub fn spans(all: &[Span]) -> String {
    const SHOWN: usize = 8;
    let shown = all.iter().take(SHOWN);
    let mut texts: Vec<String> = shown
        .map(|(first, end)| format!("{first}..{end}"))
        .collect();
    if all.len() > SHOWN {
        texts.push(format!("and {} more", all.len() - SHOWN));
    }
    texts.join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, end) = self.journal;
        writeln!(
            f,
            "journal {}: entries {first}..{end}; in the lake up to {}, {} files",
            self.log, self.lake_position, self.lake_files
        )?;
        let mut of = None;
        for lane in &self.lanes {
            let buffer = (&lane.agent, &lane.buffer);
            if of != Some(buffer) {
                writeln!(f, "\n{} buffer {}", lane.agent, lane.buffer)?;
                of = Some(buffer);
            }
            write!(f, "{lane}")?;
        }
        writeln!(f)?;
        writeln!(f, "repeats refused: {}", self.repeats_refused)?;
        if self.quarantine_files > 0 {
            writeln!(
                f,
                "quarantine: {} batches; `tributary-aggregator quarantine ls` lists them",
                self.quarantine_files
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for Alarm { agent, what, todo } in &self.alarms {
            writeln!(f, "alarm: {agent}: {what}; {todo}")?;
        }
        if self.alarms_more > 0 {
            writeln!(f, "alarm: and {} more", self.alarms_more)?;
        }
        let agree = match self.deep {
            true => "ledger, journal and every row of the lake agree",
            false => "ledger, journal and lake agree",
        };
        say_findings(f, agree, (&self.findings, self.findings_more))?;
        say_unsettled(f, &self.unsettled)
    }
}

/// What is wrong, or that nothing is.
pub(super) fn say_findings(
    f: &mut fmt::Formatter<'_>,
    agree: &str,
    (findings, more): (&[Finding], u64),
) -> fmt::Result {
    if findings.is_empty() {
        return writeln!(f, "{agree}");
    }
    writeln!(f, "{} found wrong:", findings.len() as u64 + more)?;
    findings
        .iter()
        .try_for_each(|wrong| writeln!(f, "  {wrong}"))?;
    match more {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}

/// What nobody knows.
pub(super) fn say_unsettled(f: &mut fmt::Formatter<'_>, unsettled: &[Finding]) -> fmt::Result {
    if unsettled.is_empty() {
        return Ok(());
    }
    writeln!(f, "{} could not be settled:", unsettled.len())?;
    unsettled
        .iter()
        .try_for_each(|unsure| writeln!(f, "  {unsure}"))
}

impl fmt::Display for LaneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let committed: Vec<Span> = self
            .committed
            .iter()
            .map(|run| (run.first, run.end))
            .collect();
        write!(
            f,
            "  {:<10} {}: {} batches, hash sum {}",
            self.lane,
            match committed.is_empty() {
                true => "nothing".to_owned(),
                false => spans(&committed),
            },
            self.ledger.batches,
            self.ledger.hash_sum
        )?;
        if let Some(lake) = &self.lake {
            write!(
                f,
                "; lake {} batches, {} rows",
                lake.batches,
                lake.rows.unwrap_or(0)
            )?;
        }
        if self.waiting > 0 {
            write!(f, ", {} wait for it", self.waiting)?;
        }
        writeln!(f)?;
        for (what, numbers) in [
            ("nobody holds", &self.missing),
            ("quarantined", &self.quarantined),
            ("set apart in rejected/", &self.set_apart),
            ("in doubt", &self.in_doubt),
        ] {
            if !numbers.is_empty() {
                writeln!(f, "    {what}: {}", spans(numbers))?;
            }
        }
        for Elsewhere { log, numbers } in &self.elsewhere {
            writeln!(f, "    held by journal {log}: {}", spans(numbers))?;
        }
        for gap in &self.gaps {
            let readings = gap.readings.map_or_else(
                || "nobody knows how many readings".to_owned(),
                |readings| format!("{readings} readings"),
            );
            let (first, end) = (gap.first, gap.first.saturating_add(gap.count));
            let (reason, detail) = (&gap.reason, gap.detail.escape_debug());
            writeln!(
                f,
                "    declared lost {first}..{end}: {reason}, {readings}; {detail}"
            )?;
        }
        if self.gaps_more > 0 {
            writeln!(f, "    and {} more declared losses", self.gaps_more)?;
        }
        if self.ranges_more > 0 {
            writeln!(f, "    {} ranges of numbers are left out", self.ranges_more)?;
        }
        Ok(())
    }
}

/// The name of a record, for people.
pub(super) fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Batch => "batch",
        RecordKind::Quarantined => "quarantined batch",
        RecordKind::Gap => "gap",
        RecordKind::Held | RecordKind::Registry | RecordKind::Token | RecordKind::Revocation => {
            "record"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_what_is_left_out_is_counted() {
        let mut findings = Findings::default();
        for n in 0..AUDIT_FINDINGS_MAX + 3 {
            findings.push(Finding::general(n.to_string(), ""));
        }
        let mut twice = findings.clone();
        twice.extend(findings);
        let (listed, more) = twice.into_parts();
        assert_eq!(listed.len(), AUDIT_FINDINGS_MAX);
        assert_eq!(more as usize, AUDIT_FINDINGS_MAX + 6);
        let spans = (0..AUDIT_SPANS_LISTED_MAX as u64 + 7).map(|n| (2 * n, 2 * n + 1));
        let wrong = Finding::of_names(["a", "b", "c"], spans.collect(), String::new(), "");
        assert_eq!(wrong.numbers.len(), AUDIT_SPANS_LISTED_MAX);
        assert_eq!(wrong.numbers_more, 7);
        assert!(wrong.to_string().contains("and 7 ranges more"));
    }
}
