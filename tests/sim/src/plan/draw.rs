//! Plans from seeds.

use super::{Fault, Plan, Profile, Shape};
use crate::dice::Dice;
use crate::limits::{FLAPS_MAX, RATE_MAX, RATE_MIN};
use crate::net::Side;
use tributary_protocol::limits::IN_FLIGHT_BATCHES;

/// How often each profile is drawn, in their order; islands and clones take ten times as long.
const WEIGHTS: [u64; 12] = [3, 4, 1, 4, 4, 4, 2, 1, 6, 2, 5, 5];

/// Kinds of faults, as a profile weighs them.
#[derive(Clone, Copy)]
enum Kind {
    Cut,
    HalfOpen,
    Stall,
    Refuse,
    Flap,
    Double,
    Damage,
    Shed,
    CrashAgent,
    Clone,
    CrashSite,
    FailAppends,
    SlowSite,
    LoseTail,
    LoseJournal,
    Gone,
    Part,
}

/// What the profiles are about in which journals are lost, or there are several of them.
const TAILS: &[(Kind, u64)] = &[
    (Kind::LoseTail, 5),
    (Kind::CrashSite, 5),
    (Kind::CrashAgent, 3),
    (Kind::Cut, 2),
    (Kind::HalfOpen, 1),
    (Kind::Stall, 2),
    (Kind::Shed, 1),
];
const FAILOVER: &[(Kind, u64)] = &[
    (Kind::Part, 6),
    (Kind::CrashSite, 6),
    (Kind::CrashAgent, 3),
    (Kind::Cut, 2),
    (Kind::HalfOpen, 3),
    (Kind::Stall, 3),
    (Kind::Refuse, 1),
    (Kind::Flap, 1),
    (Kind::FailAppends, 2),
    (Kind::SlowSite, 2),
    (Kind::Shed, 2),
    (Kind::Gone, 1),
];
const LOST_JOURNAL: &[(Kind, u64)] = &[
    (Kind::LoseJournal, 6),
    (Kind::LoseTail, 3),
    (Kind::Part, 6),
    (Kind::CrashSite, 4),
    (Kind::CrashAgent, 3),
    (Kind::Cut, 2),
    (Kind::HalfOpen, 2),
    (Kind::Stall, 1),
    (Kind::Shed, 3),
    (Kind::Gone, 1),
];

impl Profile {
    fn weights(self) -> &'static [(Kind, u64)] {
        use Kind::*;
        match self {
            Self::Plain => &[
                (Cut, 2),
                (Stall, 1),
                (CrashAgent, 1),
                (CrashSite, 1),
                (Shed, 1),
            ],
            Self::Links => &[
                (Cut, 4),
                (HalfOpen, 6),
                (Stall, 5),
                (Refuse, 2),
                (Flap, 1),
                (SlowSite, 2),
                (CrashSite, 1),
            ],
            Self::Islands => &[(Flap, 6), (Cut, 1), (CrashAgent, 1), (Shed, 1)],
            Self::Sheds => &[
                (Shed, 12),
                (Cut, 2),
                (HalfOpen, 3),
                (Stall, 3),
                (CrashAgent, 2),
                (CrashSite, 1),
                (FailAppends, 1),
            ],
            Self::Sites => &[
                (CrashSite, 5),
                (FailAppends, 6),
                (SlowSite, 2),
                (Cut, 2),
                (HalfOpen, 2),
                (Shed, 2),
            ],
            Self::Agents => &[
                (CrashAgent, 8),
                (Cut, 2),
                (HalfOpen, 2),
                (Stall, 2),
                (Shed, 2),
            ],
            Self::Unfaithful => &[(Double, 6), (Damage, 3), (Cut, 2), (SlowSite, 2), (Shed, 2)],
            Self::Clone => &[
                (Clone, 3),
                (Cut, 2),
                (CrashAgent, 2),
                (CrashSite, 1),
                (Shed, 1),
            ],
            Self::Mixed => &[
                (Cut, 2),
                (HalfOpen, 3),
                (Stall, 2),
                (Refuse, 1),
                (Flap, 1),
                (Double, 1),
                (Damage, 1),
                (Shed, 4),
                (CrashAgent, 3),
                (CrashSite, 3),
                (FailAppends, 3),
                (SlowSite, 2),
            ],
            Self::Tails => TAILS,
            Self::Failover => FAILOVER,
            Self::LostJournal => LOST_JOURNAL,
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "plan", 0, 0);
        let place = dice.weighted(&WEIGHTS);
        let profile = Profile::ALL.get(place).copied().unwrap_or(Profile::Plain);
        Self::draw_as(seed, profile)
    }

    /// The plan of a seed, about this.
    pub fn draw_as(seed: u64, profile: Profile) -> Self {
        let mut dice = Dice::of(seed, "shape", 0, 0);
        let agents = 1 + dice.weighted(&[6, 3, 1]);
        let shape = match profile {
            Profile::Islands => islands(&mut dice),
            _ if profile.knows_several() => several(&mut dice, agents),
            _ => Shape {
                agents,
                sites: 1,
                batches: 20 + dice.below(180) as u32,
                every_us: dice.us(20_000, 400_000),
                batch_bytes: if dice.one_in(3) { 2_000 } else { 64 * 1024 },
                rate: match dice.below(3) {
                    0 => 100_000 + dice.below(2_000_000),
                    _ => RATE_MAX,
                },
                window: match dice.below(4) {
                    0 => 1 + dice.below(IN_FLIGHT_BATCHES as u64) as u32,
                    _ => IN_FLIGHT_BATCHES as u32,
                },
            },
        };
        let (batches, every_us) = (shape.batches, shape.every_us);
        let span = i64::from(batches) * every_us;
        let most = match profile {
            Profile::Plain | Profile::Islands => 3,
            _ if profile.knows_several() => 25,
            _ => 13,
        };
        let count = dice.below(most) + u64::from(profile != Profile::Plain);
        let mut faults: Vec<(i64, Fault)> = (0..count)
            .map(|n| fault(&mut Dice::of(seed, "fault", 0, n), (profile, &shape), span))
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            profile,
            shape,
            faults,
            heal_at: span + dice.us(0, 20_000_000),
        }
    }
}

/// More is sealed than the link carries, in batches so large that each is worth a hole: islands of
/// live data are left behind.
fn islands(dice: &mut Dice) -> Shape {
    let every_us = dice.us(80_000, 150_000);
    let batch_bytes = 640 * 1024;
    // Half of a batch, and five of eight of them are readings.
    let sealed_a_second = batch_bytes * 5 / 16 * 1_000_000 / every_us as u64;
    Shape {
        agents: 1,
        sites: 1,
        batches: 1_200 + dice.below(1_500) as u32,
        every_us,
        batch_bytes,
        rate: sealed_a_second * (30 + dice.below(50)) / 100,
        window: IN_FLIGHT_BATCHES as u32,
    }
}

/// Long enough for an agent to go away and return; now and then so slow a link, and such batches,
/// that live data is sent ahead.
fn several(dice: &mut Dice, agents: usize) -> Shape {
    let large = dice.one_in(2);
    let every_us = match dice.below(3) {
        0 => dice.us(20_000, 200_000),
        _ => dice.us(200_000, 3_000_000),
    };
    let batch_bytes = match large {
        true => 300_000,
        false => 64 * 1024,
    };
    let sealed_a_second = batch_bytes * 5 / 16 * 1_000_000 / every_us as u64;
    Shape {
        agents,
        sites: 1 + dice.weighted(&[1, 5, 4]),
        batches: 20 + dice.below(180) as u32,
        every_us,
        batch_bytes,
        rate: match large {
            true => (sealed_a_second * (50 + dice.below(150)) / 100).max(RATE_MIN),
            false => RATE_MAX,
        },
        window: match dice.below(4) {
            0 => 1 + dice.below(IN_FLIGHT_BATCHES as u64) as u32,
            _ => IN_FLIGHT_BATCHES as u32,
        },
    }
}

fn fault(dice: &mut Dice, (profile, shape): (Profile, &Shape), span: i64) -> (i64, Fault) {
    let weights = profile.weights();
    let place = dice.weighted(
        &weights
            .iter()
            .map(|(_, weight)| *weight)
            .collect::<Vec<_>>(),
    );
    let kind = weights.get(place).map_or(Kind::Cut, |(kind, _)| *kind);
    let agent = dice.below(shape.agents as u64) as usize;
    let side = if dice.one_in(2) {
        Side::Agent
    } else {
        Side::Site
    };
    // Most are short, some outlast every time-out.
    let us = match dice.below(6) {
        0 | 1 if profile.knows_several() => dice.us(10_000_000, 200_000_000),
        2 | 3 if profile.knows_several() => dice.us(1_000_000, 10_000_000),
        0 => dice.us(10_000_000, 90_000_000),
        1 | 2 => dice.us(1_000_000, 10_000_000),
        _ => dice.us(10_000, 1_000_000),
    };
    let site = match shape.sites {
        1 => 0,
        // Where that agent goes first.
        sites if dice.one_in(2) => agent % sites,
        sites => dice.below(sites as u64) as usize,
    };
    let fault = match kind {
        Kind::Cut => Fault::Cut { agent },
        Kind::HalfOpen => Fault::HalfOpen { agent, knows: side },
        Kind::Stall => Fault::Stall {
            agent,
            to: side,
            us,
        },
        Kind::Refuse => Fault::Refuse { agent, us },
        Kind::Flap => {
            let times = 5 + dice.below(u64::from(FLAPS_MAX) - 5) as u32;
            let every_us = dice.us(200_000, 4_000_000);
            let times = if profile == Profile::Islands {
                FLAPS_MAX
            } else {
                times
            };
            // From early on, or there is no backlog to skip.
            let fault = Fault::Flap {
                agent,
                times,
                every_us,
            };
            return (dice.us(0, span / 16), fault);
        }
        Kind::Double => Fault::Double {
            agent,
            batches: 1 + dice.below(12) as u32,
        },
        Kind::Damage => Fault::Damage { agent },
        Kind::Shed => Fault::Shed {
            agent,
            numbers: 1 + dice.below(12),
        },
        Kind::CrashAgent => Fault::CrashAgent {
            agent,
            back: dice.one_in(2),
            down_us: us,
        },
        Kind::Clone => Fault::Clone { agent },
        Kind::CrashSite => Fault::CrashSite {
            site,
            kept: dice.one_in(2),
            down_us: us,
        },
        Kind::FailAppends => Fault::FailAppends {
            site,
            times: 1 + dice.below(4) as u32,
            kept: dice.one_in(2),
        },
        Kind::SlowSite => Fault::SlowSite { site, us },
        Kind::LoseTail => Fault::LoseTail {
            site,
            frames: 1 + dice.below(20) as u32,
        },
        Kind::LoseJournal => Fault::LoseJournal { site, down_us: us },
        Kind::Gone => Fault::Gone { site },
        Kind::Part => Fault::Part { agent, site, us },
    };
    (dice.us(0, span), fault)
}
