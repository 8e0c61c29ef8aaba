//! What breaks when, drawn from a seed before the run begins.

use crate::limits::{AGENTS, BREAKS_S, FAULTS_MAX, GONE_MS, SHED_MAX, SITES};
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
    /// Nothing passes between this agent and this aggregator.
    Partition(usize, usize),
    /// Nothing passes from this aggregator to any agent, nor from them to it.
    Island(usize),
    /// Nothing passes to this agent from this aggregator.
    Deaf(usize, usize),
    /// What is sent between these arrives all at once, later.
    Hold(usize, usize),
    /// One datagram of so many is lost.
    Drop(u64),
    /// The agent's process ends, and another one starts.
    CrashAgent(usize),
    /// An agent's spool gives up so many batches, the oldest that nobody acknowledged.
    Shed(usize, u64),
    /// This aggregator's power goes, and comes; what was not synced survives by the second.
    PowerCut(usize, u64),
    /// This aggregator's process ends, and another one starts.
    Kill(usize),
    /// So many syncs of this aggregator's disk fail.
    FailSyncs(usize, u32),
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
        let mut faults = Vec::new();
        for _ in 0..count {
            let begins = Duration::from_millis(dice.below(3 * BREAKS_S / 4 * 1_000));
            let fault = draw(&mut dice);
            // Short, or long enough that somebody goes elsewhere.
            let lasts = match dice.below(2) {
                0 => 50 + dice.below(8_000),
                _ => GONE_MS + dice.below(GONE_MS),
            };
            faults.push((begins, fault, Duration::from_millis(lasts)));
            if dice.below(3) == 0 && lasts >= GONE_MS {
                // What waits meanwhile finds no room.
                let agent = dice.below(AGENTS as u64) as usize;
                let shed = Fault::Shed(agent, 1 + dice.below(SHED_MAX));
                let later = Duration::from_millis(2_000 + dice.below(GONE_MS));
                faults.push((begins + later, shed, Duration::ZERO));
            }
        }
        if dice.below(4) == 0 {
            faults.extend(unheard(&mut dice));
        }
        faults.sort_by_key(|(begins, _, _)| *begins);
        Self { seed, faults }
    }
}

/// An agent ends soon after it began, and has heard nothing of what it sent home; and home is gone
/// when it comes back.
fn unheard(dice: &mut Dice) -> [(Duration, Fault, Duration); 3] {
    let agent = dice.below(AGENTS as u64) as usize;
    let deaf = 150 + dice.below(1_000);
    let ends = deaf + 100 + dice.below(900);
    let gone = GONE_MS + dice.below(GONE_MS);
    [
        (deaf, Fault::Deaf(agent, agent), gone),
        (ends, Fault::CrashAgent(agent), 50 + dice.below(500)),
        (ends, Fault::Island(agent), gone),
    ]
    .map(|(begins, fault, lasts)| {
        (
            Duration::from_millis(begins),
            fault,
            Duration::from_millis(lasts),
        )
    })
}

fn draw(dice: &mut Dice) -> Fault {
    let agent = dice.below(AGENTS as u64) as usize;
    // Most of it where an agent is at home.
    let site = (dice.below(2 * SITES as u64 - 1) / 2) as usize;
    match dice.below(12) {
        0 => Fault::Partition(agent, site),
        1 | 2 => Fault::Island(site),
        3 => Fault::Deaf(agent, site),
        4 => Fault::Hold(agent, site),
        5 => Fault::Drop(2 + dice.below(30)),
        6 => Fault::CrashAgent(agent),
        7 => Fault::Shed(agent, 1 + dice.below(SHED_MAX)),
        8 | 9 => Fault::PowerCut(site, dice.any()),
        10 => Fault::Kill(site),
        _ => Fault::FailSyncs(site, 1 + dice.below(4) as u32),
    }
}
