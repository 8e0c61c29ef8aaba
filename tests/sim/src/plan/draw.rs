//! Plans from seeds.

use super::{Fault, Plan, Profile, Shape};
use crate::dice::Dice;
use crate::limits::FLAPS_MAX;
use crate::net::Side;

/// How often each profile is drawn, in their order.
const WEIGHTS: [u64; 9] = [2, 3, 2, 3, 3, 3, 2, 2, 5];

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
}

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
        let islands = profile == Profile::Islands;
        let batches = match islands {
            true => 200 + dice.below(300) as u32,
            false => 20 + dice.below(180) as u32,
        };
        let every_us = dice.us(20_000, 400_000);
        let small = !islands && dice.one_in(3);
        let shape = Shape {
            agents: 1 + dice.weighted(&[6, 3, 1]),
            batches,
            every_us,
            batch_bytes: if small { 2_000 } else { 64 * 1024 },
        };
        let span = i64::from(batches) * every_us;
        let most = if profile == Profile::Plain { 3 } else { 13 };
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
        0 => dice.us(10_000_000, 90_000_000),
        1 | 2 => dice.us(1_000_000, 10_000_000),
        _ => dice.us(10_000, 1_000_000),
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
            let every_us = dice.us(shape.every_us / 2, 6 * shape.every_us);
            let (times, every_us) = (times, every_us + 200_000);
            // From early on, or there is no backlog to skip.
            let fault = Fault::Flap {
                agent,
                times,
                every_us,
            };
            return (dice.us(0, span / 4), fault);
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
            kept: dice.one_in(2),
            down_us: us,
        },
        Kind::FailAppends => Fault::FailAppends {
            times: 1 + dice.below(4) as u32,
        },
        Kind::SlowSite => Fault::SlowSite { us },
    };
    (dice.us(0, span), fault)
}
