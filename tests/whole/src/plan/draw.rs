//! Plans of the whole, from seeds.

use super::{Fault, How, Node, Plan, Profile, Shape};
use crate::limits::{JOURNAL_BYTES_LEAST, SEGMENT_BYTES};
use tributary_agent::spool::Policy;
use tributary_journal::Survival;
use tributary_journal::sim_disk::{After, FileClass};
use tributary_world::dice::Dice;
use tributary_world::limits::RATE_MAX;
use tributary_world::net::Side;

/// How often each profile is drawn, in their order.
const WEIGHTS: [u64; 13] = [2, 3, 4, 3, 3, 5, 3, 3, 3, 6, 4, 4, 4];

/// Kinds of faults, as a profile weighs them.
#[derive(Clone, Copy)]
enum Kind {
    Cut,
    HalfOpen,
    Stall,
    Refuse,
    Double,
    SiteDown,
    SiteSyncs,
    SiteDirSyncs,
    SiteWrites,
    SiteFull,
    SiteClock,
    Slow,
    StoreRefuses,
    StoreUnheard,
    StorePower,
    AgentDown,
    AgentSyncs,
    AgentDirSyncs,
    AgentWrites,
    AgentFull,
    AgentClock,
    DoorCut,
    Rules,
    /// Nothing leaves an agent for long.
    Outage,
    FailGaps,
    GapsDown,
    AgentFlip,
    SiteFlip,
}

impl Profile {
    fn weights(self) -> &'static [(Kind, u64)] {
        use Kind::*;
        match self {
            Self::Plain => &[(Cut, 2), (SiteDown, 1), (StoreRefuses, 1)],
            Self::Links => &[
                (Cut, 3),
                (HalfOpen, 5),
                (Stall, 4),
                (Refuse, 2),
                (Double, 1),
                (Slow, 2),
                (SiteDown, 1),
            ],
            Self::Sites => &[
                (SiteDown, 10),
                (Cut, 1),
                (HalfOpen, 1),
                (Slow, 1),
                (SiteClock, 1),
            ],
            Self::SiteDisk => &[
                (SiteSyncs, 4),
                (SiteDirSyncs, 2),
                (SiteWrites, 3),
                (Double, 3),
                (SiteFull, 2),
                (SiteDown, 3),
                (HalfOpen, 1),
            ],
            Self::Stores => &[
                (StoreRefuses, 3),
                (StoreUnheard, 4),
                (StorePower, 6),
                (SiteDown, 2),
            ],
            Self::Agents => &[
                (AgentDown, 10),
                (Cut, 1),
                (DoorCut, 2),
                (AgentClock, 2),
                (SiteDown, 1),
            ],
            Self::AgentDisk => &[
                (AgentSyncs, 4),
                (AgentDirSyncs, 2),
                (AgentWrites, 3),
                (AgentFull, 2),
                (AgentDown, 3),
                (DoorCut, 1),
            ],
            Self::Doors => &[(DoorCut, 10), (AgentDown, 3), (HalfOpen, 1)],
            Self::Rules => &[(Rules, 6), (AgentDown, 8), (DoorCut, 2)],
            Self::Mixed => &[
                (AgentDown, 4),
                (AgentSyncs, 1),
                (AgentWrites, 1),
                (AgentClock, 1),
                (DoorCut, 3),
                (Rules, 1),
                (Cut, 1),
                (HalfOpen, 2),
                (Stall, 2),
                (Refuse, 1),
                (Slow, 1),
                (SiteDown, 4),
                (SiteSyncs, 2),
                (SiteDirSyncs, 1),
                (SiteWrites, 1),
                (SiteFull, 1),
                (SiteClock, 1),
                (StoreRefuses, 1),
                (StoreUnheard, 1),
                (StorePower, 2),
            ],
            Self::Spools => &[
                (Outage, 8),
                (AgentDown, 5),
                (FailGaps, 2),
                (GapsDown, 4),
                (AgentSyncs, 2),
                (AgentDirSyncs, 1),
                (AgentWrites, 1),
                (SiteDown, 2),
                (HalfOpen, 1),
                (AgentFull, 1),
            ],
            Self::AgentBits => &[(AgentFlip, 5), (AgentDown, 5), (HalfOpen, 1), (SiteDown, 1)],
            Self::SiteBits => &[(SiteFlip, 5), (SiteDown, 5), (HalfOpen, 1), (AgentDown, 1)],
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan", 0, 0);
        let place = dice.weighted(&WEIGHTS);
        Self::draw_as(seed, Profile::ALL[place])
    }

    /// The plan of a seed, about this.
    pub fn draw_as(seed: u64, profile: Profile) -> Self {
        let mut dice = Dice::of(seed, "shape", 0, 0);
        let of_site = matches!(
            profile,
            Profile::Links | Profile::Sites | Profile::SiteDisk | Profile::Stores
        );
        let made = of_site && dice.one_in(2);
        let shape = Shape {
            agents: 1 + dice.weighted(&[6, 3, 1]),
            made: if made { 20 + dice.below(80) as u32 } else { 0 },
            devices: if made { 0 } else { 1 + dice.below(3) as usize },
            messages: if made { 0 } else { 20 + dice.below(80) as u32 },
            every_us: dice.us(20_000, 300_000),
            rate: match dice.below(3) {
                0 => 20_000 + dice.below(500_000),
                _ => RATE_MAX,
            },
            flush_us: match dice.below(3) {
                // The journal is trimmed meanwhile, as far as the lake has come.
                0 => dice.us(4_000_000, 40_000_000),
                _ => dice.us(300_000, 4_000_000),
            },
            spool: 0,
            journal: SEGMENT_BYTES,
            policy: Policy::DropOldest,
        };
        let shape = match profile {
            Profile::Spools => small(seed, shape),
            // A journal of several segments, most of which the lake has.
            Profile::SiteBits => long(seed, shape),
            // Small segments of the spool, so that bits hit more than one.
            Profile::AgentBits => Shape {
                spool: 100,
                ..shape
            },
            _ => shape,
        };
        let span = i64::from(shape.made.max(shape.messages)) * shape.every_us;
        let most = if profile == Profile::Plain { 3 } else { 9 };
        let count = dice.below(most) + u64::from(profile != Profile::Plain);
        let mut faults: Vec<(i64, Fault)> = (0..count)
            .map(|n| {
                let mut dice = Dice::of(seed, "fault", 0, n);
                let fault = fault(&mut dice, profile, &shape);
                (dice.us(0, span), fault)
            })
            .collect();
        if matches!(profile, Profile::AgentBits | Profile::SiteBits) {
            faults.extend(ends(seed, &faults));
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            profile,
            shape,
            faults,
            heal_at: span + dice.us(0, 10_000_000),
        }
    }
}

/// Of every second bit that flips, the end of the process that would read it, soon after.
fn ends(seed: u64, faults: &[(i64, Fault)]) -> Vec<(i64, Fault)> {
    let mut dice = Dice::of(seed, "ends", 0, 0);
    let flips = faults.iter().filter_map(|(at, fault)| match fault {
        Fault::Flip { node, .. } => Some((*at, *node)),
        _ => None,
    });
    let mut ends = Vec::new();
    for (at, node) in flips {
        if dice.one_in(2) {
            ends.push((at + dice.us(0, 1_000_000), down(&mut dice, node)));
        }
    }
    ends
}

/// A shape whose journal has many segments, with a lake that is close behind it.
fn long(seed: u64, shape: Shape) -> Shape {
    let mut dice = Dice::of(seed, "long", 0, 0);
    Shape {
        agents: 1,
        messages: 60 + dice.below(100) as u32,
        every_us: dice.us(50_000, 150_000),
        rate: RATE_MAX,
        flush_us: dice.us(50_000, 500_000),
        spool: 100,
        journal: JOURNAL_BYTES_LEAST,
        ..shape
    }
}

/// A shape whose spools are full soon, when nothing leaves them.
fn small(seed: u64, shape: Shape) -> Shape {
    let mut dice = Dice::of(seed, "spool", 0, 0);
    Shape {
        agents: 1 + dice.weighted(&[3, 1]),
        messages: 60 + dice.below(200) as u32,
        spool: 2 + dice.below(3),
        policy: match dice.below(4) {
            0 => Policy::Block,
            1 => Policy::DropNewest,
            _ => Policy::DropOldest,
        },
        ..shape
    }
}

/// Most are short, some outlast every time-out.
fn lasts(dice: &mut Dice) -> i64 {
    match dice.below(6) {
        0 => dice.us(10_000_000, 90_000_000),
        1 | 2 => dice.us(1_000_000, 10_000_000),
        _ => dice.us(10_000, 1_000_000),
    }
}

fn how(dice: &mut Dice) -> How {
    match dice.below(5) {
        0 => How::Kill,
        1 => How::Power(Survival::All),
        2 | 3 => How::Power(Survival::Nothing),
        _ => How::Power(Survival::RandomHalf(dice.bits() % 100_000)),
    }
}

fn down(dice: &mut Dice, node: Node) -> Fault {
    let after = match dice.below(8) {
        0 => After::Between,
        1..=3 => After::Syncs(1 + dice.below(20)),
        4 => After::Renames(1 + dice.below(4)),
        _ => After::Operations(1 + dice.below(120)),
    };
    let how = how(dice);
    Fault::Down {
        node,
        after,
        how,
        down_us: lasts(dice),
    }
}

fn fault(dice: &mut Dice, profile: Profile, shape: &Shape) -> Fault {
    let weights: Vec<u64> = profile
        .weights()
        .iter()
        .map(|(_, weight)| *weight)
        .collect();
    let (kind, _) = profile.weights()[dice.weighted(&weights)];
    let agent = dice.below(shape.agents as u64) as usize;
    let side = if dice.one_in(2) {
        Side::Agent
    } else {
        Side::Site
    };
    let us = lasts(dice);
    let times = 1 + dice.below(4) as u32;
    let node = Node::Site;
    match kind {
        Kind::Cut => Fault::Cut { agent },
        Kind::HalfOpen => Fault::HalfOpen { agent, knows: side },
        Kind::Stall => Fault::Stall {
            agent,
            to: side,
            us,
        },
        Kind::Refuse => Fault::Refuse { agent, us },
        Kind::Double => Fault::Double {
            agent,
            batches: 1 + dice.below(40) as u32,
        },
        Kind::SiteDown => down(dice, node),
        Kind::SiteSyncs => Fault::FailSyncs { node, times },
        Kind::SiteDirSyncs => Fault::FailDirSyncs { node, times },
        Kind::SiteWrites => Fault::FailWrites { node, times },
        Kind::SiteFull => Fault::Full { node, us },
        Kind::SiteClock => Fault::Clock {
            node,
            us: clock(dice),
        },
        Kind::AgentDown => down(dice, Node::Agent(agent)),
        Kind::AgentSyncs => Fault::FailSyncs {
            node: Node::Agent(agent),
            times,
        },
        Kind::AgentDirSyncs => Fault::FailDirSyncs {
            node: Node::Agent(agent),
            times,
        },
        Kind::AgentWrites => Fault::FailWrites {
            node: Node::Agent(agent),
            times,
        },
        Kind::AgentFull => Fault::Full {
            node: Node::Agent(agent),
            us,
        },
        Kind::AgentClock => Fault::Clock {
            node: Node::Agent(agent),
            us: clock(dice),
        },
        Kind::DoorCut => Fault::DoorCut {
            agent,
            device: dice.below(shape.devices.max(1) as u64) as usize,
        },
        Kind::Rules => Fault::Rules { agent },
        Kind::AgentFlip => flip(dice, Node::Agent(agent)),
        Kind::SiteFlip => flip(dice, node),
        Kind::FailGaps => Fault::FailGaps { agent, times },
        Kind::GapsDown => Fault::GapsDown {
            agent,
            write: 1 + dice.below(6) as u32,
            how: how(dice),
            down_us: us,
        },
        Kind::Outage => Fault::Stall {
            agent,
            to: side,
            us: dice.us(5_000_000, 90_000_000),
        },
        Kind::Slow => Fault::Slow { us },
        Kind::StoreRefuses => Fault::StoreRefuses { times },
        Kind::StoreUnheard => Fault::StoreUnheard { times },
        Kind::StorePower => Fault::StorePower {
            changes: 1 + dice.below(12),
            made: dice.one_in(2),
            down_us: us,
        },
    }
}

fn flip(dice: &mut Dice, node: Node) -> Fault {
    use FileClass::*;
    let classes: &[FileClass] = match node {
        Node::Agent(_) => &FileClass::ALL,
        // It has no others.
        Node::Site => &[
            SegmentHeader,
            FrameHeader,
            FramePayload,
            CheckpointHeader,
            CheckpointBody,
            CheckpointBody,
        ],
    };
    let class = classes[dice.below(classes.len() as u64) as usize];
    Fault::Flip { node, class }
}

/// What a wall clock jumps by: a little, an hour, decades.
fn clock(dice: &mut Dice) -> i64 {
    let us = match dice.below(3) {
        0 => dice.us(1_000, 10_000_000),
        1 => dice.us(10_000_000, 7_200_000_000),
        _ => dice.us(1_000_000_000_000, 1_500_000_000_000_000),
    };
    if dice.one_in(2) { us } else { -us }
}
