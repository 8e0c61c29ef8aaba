//! What breaks when, drawn from a seed before the run begins.

use crate::limits::{AGENTS, BREAKS_S, FAULTS_MAX};
use std::time::Duration;

/// A sequence of numbers that a seed gives (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed, for this purpose.
    pub fn of(seed: u64, purpose: &str) -> Self {
        let hash = blake3::keyed_hash(&[7; 32], format!("{seed} {purpose}").as_bytes());
        let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        Self(u64::from_le_bytes(first))
    }

    /// Any 64 bits.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end.max(1)
    }
}

/// Something that breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing passes between this agent and the aggregator.
    Partition(usize),
    /// Nothing passes from the aggregator to this agent.
    Deaf(usize),
    /// What is sent arrives all at once, later.
    Hold(usize),
    /// One datagram of so many is lost.
    Drop(u64),
    /// The agent's process ends, and another one starts.
    CrashAgent(usize),
    /// The aggregator's power goes, and comes; what was not synced survives by this.
    PowerCut(u64),
    /// The aggregator's process ends, and another one starts.
    Kill,
    /// So many syncs of the aggregator's disk fail.
    FailSyncs(u32),
}

/// Everything that breaks in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// When each begins, and how long it lasts.
    pub faults: Vec<(Duration, Fault, Duration)>,
}

impl Plan {
    /// The plan of this seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan");
        let count = 1 + dice.below(FAULTS_MAX);
        let mut faults: Vec<_> = (0..count)
            .map(|_| {
                let begins = Duration::from_millis(dice.below(BREAKS_S * 1_000));
                let fault = draw(&mut dice);
                let lasts = Duration::from_millis(50 + dice.below(12_000));
                (begins, fault, lasts)
            })
            .collect();
        faults.sort_by_key(|(begins, _, _)| *begins);
        Self { seed, faults }
    }
}

fn draw(dice: &mut Dice) -> Fault {
    let agent = dice.below(AGENTS as u64) as usize;
    match dice.below(8) {
        0 => Fault::Partition(agent),
        1 => Fault::Deaf(agent),
        2 => Fault::Hold(agent),
        3 => Fault::Drop(2 + dice.below(30)),
        4 => Fault::CrashAgent(agent),
        5 => Fault::PowerCut(dice.any()),
        6 => Fault::Kill,
        _ => Fault::FailSyncs(1 + dice.below(4) as u32),
    }
}
