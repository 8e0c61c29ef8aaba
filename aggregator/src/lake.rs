//! The lake: Parquet below `<data-dir>/lake`, written from the journal, every row exactly once.
//!
//! Three steps make a flush of the journal entries `[p, q)`: an *intent* that fixes `q` before
//! anything is visible, the files, and a *done* marker. Progress is the chain of done markers and
//! stands nowhere else. Whatever stops in between is redone with exactly the same `q`, which gives
//! the same files byte for byte: [`load`] and [`columns`] are functions of the entries alone.
//!
//! It knows nothing of agents' connections, and does not decide what is a duplicate: the ledger
//! did, before the entry was written.

pub mod partition;

pub mod load;

pub mod aggregate;
pub mod alert;
pub mod columns;
pub mod file;
mod files;

pub mod commit;
pub mod found;
pub mod markers;

pub mod recent;
pub mod sink;
pub mod source;

pub use sink::{Lake, LakeConfig, LakeHandle, LakeStatus};

use tributary_protocol::ids::Lane;

/// A table of the lake: one folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Readings of the lanes `telemetry` and `events`.
    Readings,
    /// Readings of the lane `alerts`.
    Alerts,
    /// Readings of the lane `aggregates`.
    Aggregates,
    /// Declared losses of every lane.
    Gaps,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Readings, Self::Alerts, Self::Aggregates, Self::Gaps];

    /// The table that takes the readings of a lane.
    pub fn of(lane: Lane) -> Self {
        match lane {
            Lane::Alerts => Self::Alerts,
            Lane::Aggregates => Self::Aggregates,
            Lane::Telemetry | Lane::Events | Lane::Series => Self::Readings,
        }
    }

    /// The folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Alerts => "alerts",
            Self::Aggregates => "aggregates",
            Self::Gaps => "gaps",
        }
    }
}

/// Why a flush did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The object store failed; worth another try.
    #[error("the lake's store failed at `{path}`: {source}; free or repair it, it is retried")]
    Store {
        /// The object.
        path: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Somebody else writes this lake from the same journal.
    #[error(
        "`{path}` was written by somebody else with other content: two aggregators write one \
         lake from one journal; stop one of them"
    )]
    Fenced {
        /// The object that both wanted.
        path: String,
    },
    /// The lake has seen more of this journal than there is.
    #[error(
        "the lake stands at entry {lake} of journal {log}, which ends at {journal}: the journal \
         was rolled back (log_rolled_back); put the newest copy of it back, or let \
         `tributary-aggregator restore` begin one that knows what the lake has"
    )]
    RolledBack {
        /// The journal.
        log: tributary_protocol::ids::LogId,
        /// Where the lake stands.
        lake: u64,
        /// Where the journal ends.
        journal: u64,
    },
    /// The journal could not be read.
    #[error("the lake cannot read the journal at entry {from}: {reason}")]
    Journal {
        /// From where.
        from: u64,
        /// What the journal said.
        reason: String,
    },
    /// A marker is not what this build writes.
    #[error("`{path}` is no marker of the lake: {reason}; put it back from a copy of the lake")]
    Marker {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What the journal lost may be in a file that cannot be relied on.
    #[error(
        "entries of the journal cannot be read, and `{path}`, which may hold what was in them, is \
         not what it was written as: {reason}; put it back from a copy of the lake; or, to do \
         without its rows, move it away: what agents still have of them is taken again, and the \
         next start names the files that go with it, if a batch has rows there, too"
    )]
    Unknown {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What the journal lost is in the lake in part.
    #[error(
        "entries of the journal cannot be read, and batches of the lane {lane} that may have been \
         in them are in the lake with some of their rows only: a file named {name} is missing \
         beside `{there}`; put it back from a copy of the lake; or, to do without their rows, move \
         all of these away together: what agents still have of those entries is taken again, and \
         of the rest the lake has no rows then"
    )]
    Torn {
        /// The lane.
        lane: &'static str,
        /// How all files of the flush are called, whatever their folder.
        name: String,
        /// Those that are there.
        there: String,
    },
    /// Parquet refused the rows.
    #[error("Parquet could not be written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Columns and schema disagree.
    #[error("columns do not fit the schema: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A file of the lake is not whole.
    #[error("`{path}` is not a whole file of this lake: {reason}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl LakeError {
    /// Whether trying again cannot help: the same entries give the same bytes, or none.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Fenced { .. }
                | Self::RolledBack { .. }
                | Self::Marker { .. }
                | Self::Parquet(_)
                | Self::Arrow(_)
        )
    }
}
