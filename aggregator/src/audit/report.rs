//! What an audit says: as JSON, whose fields are only added, and as text for people.

use crate::keeper::record::RecordKind;
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
    /// When: microseconds since 1970, UTC.
    pub at_us: i64,
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
    /// What is worth knowing, and not wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
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
    /// Numbers of which another aggregator may hold the same.
    pub in_doubt: Vec<Span>,
    /// The ledger's number and hash sum.
    pub ledger: Stated,
    /// The journal's, of the entries that it still holds.
    pub journal: Stated,
    /// The lake's; of the lane `series` only its markers tell, and those of all lanes together.
    pub lake: Option<Stated>,
    /// Batches that wait for the next flush of the lake.
    pub waiting: u64,
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
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub todo: String,
}

impl Finding {
    /// One that is no lane's.
    pub fn general(what: String, todo: &str) -> Self {
        Self {
            agent: None,
            buffer: None,
            lane: None,
            numbers: Vec::new(),
            what,
            todo: todo.to_owned(),
        }
    }

    /// One of these numbers of a lane.
    pub fn of(
        (agent, key): &(AgentId, LaneKey),
        numbers: Vec<Span>,
        what: String,
        todo: &str,
    ) -> Self {
        Self {
            agent: Some(agent.to_string()),
            buffer: Some(key.buffer.to_string()),
            lane: Some(key.lane.name().to_owned()),
            numbers,
            what,
            todo: todo.to_owned(),
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
        match self.findings.len() {
            0 if self.deep => writeln!(f, "ledger, journal and every row of the lake agree"),
            0 => writeln!(f, "ledger, journal and lake agree"),
            n => {
                writeln!(f, "{n} found wrong:")?;
                self.findings
                    .iter()
                    .try_for_each(|wrong| writeln!(f, "  {wrong}"))
            }
        }
    }
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
        Ok(())
    }
}

/// The name of a record, for people.
pub(super) fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Batch => "batch",
        RecordKind::Quarantined => "quarantined batch",
        RecordKind::Gap => "gap",
        RecordKind::Registry | RecordKind::Token | RecordKind::Revocation => "record",
    }
}
