//! Mistakes that the simulation must find: named here, planted where the product could make them.
//!
//! A site reads `if planted!(HeldAtJudge) { … }`. Without the feature `on` that is the literal
//! `false`, and the compiler drops the branch. With it the mistake is made on the threads that
//! `plant` it, and on no other. This crate knows nothing of what a mistake does.
#![forbid(unsafe_code)]
// tidy: limits because it holds a list of names, and nothing that grows while it runs

#[cfg(all(feature = "on", not(debug_assertions)))]
compile_error!("planted bugs in a release build: use the profile `sim`, or `dev`");

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)*) => {
        /// A mistake; its documentation says what is done wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)*
        }

        impl Bug {
            /// Every mistake, each with at least one site.
            pub const ALL: &[Self] = &[$(Self::$bug),*];
        }
    };
}

bugs! {
    /// The ledger holds a batch when it is judged; when the append fails it goes on holding it.
    HeldAtJudge,
    /// The ledger does not look whether a first copy is being written: the second one is, too.
    NoPending,
    /// `Welcome` names what is being written as held.
    WelcomeSaysPending,
    /// What was aborted counts as being written for ever.
    AbortKeepsPending,
    /// The hash of a gap is summed once, however many numbers it holds.
    GapSummedOnce,
    /// A lane that is folded loses the hashes of its batches.
    FoldForgetsHashes,
    /// A gap takes numbers that are held as data.
    GapOverData,
    /// An acknowledgement runs over what lies between two batches.
    AckTooWide,
    /// The sender takes a run of `Welcome` for its own whatever its hash sum.
    TrimWithoutHash,
    /// The sender opens a hole more however many there are.
    Island41,
    /// The spool is trimmed to the greatest acknowledged number, holes or not.
    TrimOverHoles,
    /// What was under way when the connection was lost counts as under way in the next session.
    FlightKept,
    /// What a journal acknowledged and does not name any more is not taken back.
    TakenBackByNobody,
    /// What was lost is not looked for among what was trimmed.
    ReclaimNothing,
    /// What is under way counts as acknowledged in the cursor.
    CursorCountsInFlight,
    /// Every batch is marked as in doubt.
    MarkAlways,
    /// What a journal acknowledged stays acknowledged when another one is met in its place.
    MeetKeepsOld,
    /// A gap that is acknowledged credits its acker with what others hold, too.
    GapCreditsAll,
    /// A lane's floor in the ledger is its end and not what is left of it.
    FloorTooHigh,
    /// What was under way when the connection was lost counts as acknowledged.
    DoubtAcked,
    /// `Hello` says nothing of what others acknowledged.
    ElsewhereUnsaid,
    /// What an earlier session settled of the lane `series` counts for the next ledger, too.
    Blind1,
    /// After a restart only the journal that was met last may hold what was not acknowledged.
    Blind2,
    /// What a journal is recalled to have acknowledged counts as somebody's beside it.
    Blind3,
    /// The ledger forgets the lanes of a buffer that a new session does not announce.
    Blind4,
    /// An fdatasync that failed is tried once more on the same file.
    Blind5,
    /// The last frame that recovery found is believed without being made durable.
    Blind6,
    /// A second copy is acknowledged while the first one is being written.
    Blind7,
    /// The aggregator's journal is trimmed to the newest checkpoint instead of the older one.
    Blind8,
    /// The intent of a flush goes before its done marker is there.
    Blind9,
    /// A segment that is shed goes before the gap for it is durable.
    Blind10,
    /// A replayed message that is covered leaves no mark.
    Blind11,
    /// Behind a damaged place of the write-ahead log the replay goes on with the next life.
    Blind12,
    /// The agent acknowledges messages, and then makes them durable.
    HeardBeforeSync,
    /// The keeper answers, and then makes batches durable.
    AnsweredBeforeSync,
    /// A second copy of what is being written is acknowledged at once.
    SharedAtOnce,
    /// Every third frame of a log is not synced.
    SyncSkipped,
    /// What is replayed is read by the rules of now.
    NewRulesOnReplay,
    /// What is sealed already leaves no mark when it is replayed.
    MarksNotReplayed,
    /// The id of a QoS 2 message is forgotten as soon as the message is received.
    ReleasedWhenReceived,
    /// A checkpoint says that one message more is sealed.
    CheckpointAhead,
    /// A flush of the lake begins without an intent.
    NoIntent,
    /// A flush is done before its files are there.
    DoneBeforeFiles,
    /// An interrupted flush is redone up to what is durable now.
    RedoneToAnotherEnd,
    /// A life of the storage takes the name of the one before.
    BufferKept,
    /// Marks are no part of a checkpoint: a restart knows those alone that the log behind it gives.
    MarksForgotten,
    /// The lake reads an entry more of the journal than is durable.
    BeyondDurable,
    /// The aggregator's journal is trimmed whether the lake has it or not.
    TrimmedBeyondLake,
    /// Batches go to an aggregator before the cursor says that it may have them.
    SentBeforeSaved,
    /// The aggregator's journal does not say of a batch that it is in doubt.
    MarkNotKept,
}

impl Bug {
    /// Those that only a world of whole agents and aggregators can show.
    pub const OF_THE_WHOLE: &[Self] = &[
        Self::HeardBeforeSync,
        Self::AnsweredBeforeSync,
        Self::SharedAtOnce,
        Self::SyncSkipped,
        Self::NewRulesOnReplay,
        Self::MarksNotReplayed,
        Self::ReleasedWhenReceived,
        Self::CheckpointAhead,
        Self::NoIntent,
        Self::DoneBeforeFiles,
        Self::RedoneToAnotherEnd,
        Self::BufferKept,
        Self::MarksForgotten,
        Self::BeyondDurable,
        Self::TrimmedBeyondLake,
        Self::Blind5,
        Self::Blind6,
        Self::Blind7,
        Self::Blind8,
        Self::Blind9,
        Self::Blind10,
        Self::Blind11,
        Self::Blind12,
    ];
}

/// Whether the code around is to make this mistake.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        const { $crate::never($crate::Bug::$bug) }
    };
}

/// Whether the code around is to make this mistake.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::is($crate::Bug::$bug)
    };
}

/// What a site is without the feature: its name is checked, and it is `false` at compile time.
pub const fn never(_: Bug) -> bool {
    false
}

#[cfg(feature = "on")]
pub use switch::{is, plant};

#[cfg(feature = "on")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// What a program that has planted bugs in it says of itself: a release is searched for it.
    #[used]
    static MARK: &str = "tributary-planted-bugs-are-in-here";

    /// Whether this thread makes this mistake.
    pub fn is(bug: Bug) -> bool {
        NOW.get() == Some(bug)
    }

    /// Makes this mistake on this thread from now on, and no other.
    pub fn plant(bug: Option<Bug>) {
        NOW.set(bug);
    }
}

#[cfg(test)]
mod tests {
    use super::Bug;

    #[test]
    fn a_site_is_false_until_its_bug_is_planted() {
        assert!(!planted!(HeldAtJudge));
        #[cfg(feature = "on")]
        {
            super::plant(Some(Bug::HeldAtJudge));
            assert!(planted!(HeldAtJudge));
            let elsewhere = std::thread::spawn(|| planted!(HeldAtJudge));
            assert!(!elsewhere.join().unwrap_or(true), "another thread has it");
            super::plant(None);
            assert!(!planted!(HeldAtJudge));
        }
    }

    #[test]
    fn each_bug_is_listed_once() {
        let mut names: Vec<String> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
