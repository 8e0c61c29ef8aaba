//! A plan as text: what is committed for a run that found something. Seeds rot whenever plans are
//! drawn otherwise; a text stays.
//!
//! `plan 1 seed 7 profile Links agents 1 batches 90 every 100000 bytes 65536 rate 500000 window 16
//! heal 9000000`, then one fault a line: `at 3150000 stall agent0 to site for 800000`.
//! `#` begins a comment. Of several aggregators the first line says how many, behind the agents
//! (`sites 3`), and a fault of one says which at its end (`at site2`); of the first none is said.

use super::{Fault, Plan, Profile, Shape};
use crate::limits::{
    AGENTS_MAX, BATCHES_MAX, BATCHES_MIN, FAULTS_MAX, FLAPS_MAX, PLAN_US_MAX, RATE_MAX, RATE_MIN,
    SITES_MAX,
};
use crate::net::Side;
use crate::words::Words;
use std::fmt;
use std::str::FromStr;
use tributary_protocol::limits::{BATCH_BYTES_MAX, IN_FLIGHT_BATCHES};

/// Why a text is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for PlanError {}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            profile,
            shape,
            heal_at,
            ..
        } = self;
        let Shape {
            agents,
            sites,
            batches,
            every_us,
            batch_bytes,
            rate,
            window,
        } = shape;
        write!(f, "plan 1 seed {seed} profile {profile} agents {agents} ")?;
        if *sites > 1 {
            write!(f, "sites {sites} ")?;
        }
        writeln!(
            f,
            "batches {batches} every {every_us} bytes {batch_bytes} rate {rate} \
             window {window} heal {heal_at}"
        )?;
        let faults = self.faults.iter();
        faults
            .into_iter()
            .try_for_each(|(at, fault)| writeln!(f, "at {at} {fault}"))
    }
}

fn side(side: &Side) -> &'static str {
    match side {
        Side::Agent => "agent",
        Side::Site => "site",
    }
}

/// Says which aggregator; of the first nothing.
struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            site => write!(f, " at site{site}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { agent } => write!(f, "cut agent{agent}"),
            Self::HalfOpen { agent, knows } => {
                write!(f, "halfopen agent{agent} knows {}", side(knows))
            }
            Self::Stall { agent, to, us } => {
                write!(f, "stall agent{agent} to {} for {us}", side(to))
            }
            Self::Refuse { agent, us } => write!(f, "refuse agent{agent} for {us}"),
            Self::Flap {
                agent,
                times,
                every_us,
            } => write!(f, "flap agent{agent} times {times} every {every_us}"),
            Self::Double { agent, batches } => write!(f, "double agent{agent} batches {batches}"),
            Self::Damage { agent } => write!(f, "damage agent{agent}"),
            Self::Shed { agent, numbers } => write!(f, "shed agent{agent} numbers {numbers}"),
            Self::CrashAgent {
                agent,
                back,
                down_us,
            } => {
                let back = if *back { "back" } else { "gone" };
                write!(f, "crash agent{agent} trimmed {back} down {down_us}")
            }
            Self::Clone { agent } => write!(f, "clone agent{agent}"),
            Self::CrashSite {
                site,
                kept,
                down_us,
            } => {
                let kept = if *kept { "kept" } else { "lost" };
                write!(f, "crashsite frame {kept} down {down_us}{}", At(*site))
            }
            Self::FailAppends { site, times, kept } => {
                let frame = if *kept { "kept" } else { "lost" };
                write!(f, "failappends times {times} frame {frame}{}", At(*site))
            }
            Self::SlowSite { site, us } => write!(f, "slowsite for {us}{}", At(*site)),
            Self::LoseTail { site, frames } => {
                write!(f, "losetail frames {frames}{}", At(*site))
            }
            Self::LoseJournal { site, down_us } => {
                write!(f, "losejournal down {down_us}{}", At(*site))
            }
            Self::Gone { site } => write!(f, "gone{}", At(*site)),
            Self::Part { agent, site, us } => {
                write!(f, "part agent{agent} for {us}{}", At(*site))
            }
        }
    }
}

fn us(words: &mut Words<'_>, name: &str) -> Result<i64, String> {
    words.number(name, (0, PLAN_US_MAX))
}

fn agent(words: &mut Words<'_>) -> Result<usize, String> {
    let word = words.next("agentN")?;
    let agent = word.strip_prefix("agent").and_then(|n| n.parse().ok());
    agent.ok_or_else(|| format!("`{word}` where `agentN` is expected"))
}

fn site(words: &mut Words<'_>) -> Result<usize, String> {
    if !words.comes("at") {
        return Ok(0);
    }
    words.word("at")?;
    let word = words.next("siteN")?;
    let site = word.strip_prefix("site").and_then(|n| n.parse().ok());
    site.ok_or_else(|| format!("`{word}` where `siteN` is expected"))
}

fn side_of(words: &mut Words<'_>, name: &str) -> Result<Side, String> {
    words.one_of(name, &[("agent", Side::Agent), ("site", Side::Site)])
}

fn fault(words: &mut Words<'_>) -> Result<Fault, String> {
    let kind = words.next("the fault")?;
    Ok(match kind {
        "cut" => Fault::Cut {
            agent: agent(words)?,
        },
        "halfopen" => Fault::HalfOpen {
            agent: agent(words)?,
            knows: side_of(words, "knows")?,
        },
        "stall" => Fault::Stall {
            agent: agent(words)?,
            to: side_of(words, "to")?,
            us: us(words, "for")?,
        },
        "refuse" => Fault::Refuse {
            agent: agent(words)?,
            us: us(words, "for")?,
        },
        "flap" => Fault::Flap {
            agent: agent(words)?,
            times: words.number("times", (1, FLAPS_MAX))?,
            every_us: us(words, "every")?,
        },
        "double" => Fault::Double {
            agent: agent(words)?,
            batches: words.number("batches", (1, BATCHES_MAX))?,
        },
        "damage" => Fault::Damage {
            agent: agent(words)?,
        },
        "shed" => Fault::Shed {
            agent: agent(words)?,
            numbers: words.number("numbers", (1, u64::from(BATCHES_MAX)))?,
        },
        "crash" => Fault::CrashAgent {
            agent: agent(words)?,
            back: words.one_of("trimmed", &[("back", true), ("gone", false)])?,
            down_us: us(words, "down")?,
        },
        "clone" => Fault::Clone {
            agent: agent(words)?,
        },
        "crashsite" => Fault::CrashSite {
            kept: words.one_of("frame", &[("kept", true), ("lost", false)])?,
            down_us: us(words, "down")?,
            site: site(words)?,
        },
        "failappends" => Fault::FailAppends {
            times: words.number("times", (1, BATCHES_MAX))?,
            kept: words.one_of("frame", &[("kept", true), ("lost", false)])?,
            site: site(words)?,
        },
        "slowsite" => Fault::SlowSite {
            us: us(words, "for")?,
            site: site(words)?,
        },
        "losetail" => Fault::LoseTail {
            frames: words.number("frames", (1, BATCHES_MAX))?,
            site: site(words)?,
        },
        "losejournal" => Fault::LoseJournal {
            down_us: us(words, "down")?,
            site: site(words)?,
        },
        "gone" => Fault::Gone { site: site(words)? },
        "part" => Fault::Part {
            agent: agent(words)?,
            us: us(words, "for")?,
            site: site(words)?,
        },
        other => return Err(format!("no fault is called `{other}`")),
    })
}

fn head(words: &mut Words<'_>) -> Result<Plan, String> {
    words.number("plan", (1, 1))?;
    let seed = words.number("seed", (0, u64::MAX))?;
    words.word("profile")?;
    let name = words.next("profile")?;
    let profile = Profile::ALL.into_iter().find(|it| it.to_string() == name);
    let plan = Plan {
        seed,
        profile: profile.ok_or_else(|| format!("no profile is called `{name}`"))?,
        shape: Shape {
            agents: words.number("agents", (1, AGENTS_MAX))?,
            sites: match words.comes("sites") {
                true => words.number("sites", (1, SITES_MAX))?,
                false => 1,
            },
            batches: words.number("batches", (BATCHES_MIN, BATCHES_MAX))?,
            every_us: us(words, "every")?,
            batch_bytes: words.number("bytes", (1, BATCH_BYTES_MAX as u64))?,
            rate: words.number("rate", (RATE_MIN, RATE_MAX))?,
            window: words.number("window", (1, IN_FLIGHT_BATCHES as u32))?,
        },
        heal_at: us(words, "heal")?,
        faults: Vec::new(),
    };
    Ok(plan)
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan: Option<Self> = None;
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let mut words = Words::from(text);
            let mut read = || match &mut plan {
                None => {
                    plan = Some(head(&mut words)?);
                    words.end()
                }
                Some(plan) if plan.faults.len() == FAULTS_MAX => {
                    Err(format!("more than {FAULTS_MAX} faults"))
                }
                Some(plan) => {
                    let at = us(&mut words, "at")?;
                    plan.faults.push((at, fault(&mut words)?));
                    words.end()
                }
            };
            read().map_err(|what| PlanError { line, what })?;
        }
        let mut plan = plan.ok_or_else(|| PlanError {
            line: 1,
            what: "it begins with `plan 1 seed …`".to_owned(),
        })?;
        plan.faults.sort_by_key(|(at, _)| *at);
        Ok(plan)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_is_read_back_as_it_was() {
        let mut lines = 0;
        for seed in 0..500 {
            let mut plan = Plan::draw(seed);
            plan.faults
                .push((plan.heal_at, Fault::LoseTail { site: 0, frames: 3 }));
            plan.faults.sort_by_key(|(at, _)| *at);
            let text = plan.to_string();
            assert_eq!(text.parse::<Plan>().unwrap(), plan, "{text}");
            lines += text.lines().count();
        }
        assert!(lines > 2_000, "{lines}");
    }

    #[test]
    fn what_is_no_plan_is_refused_with_its_line() {
        let head = "plan 1 seed 7 profile Links agents 1 batches 9 every 10 bytes 9 rate 9000 \
                    window 9 heal 9";
        for (text, line, what) in [
            ("", 1, "begins with"),
            ("plan 2", 1, "expected 1 to 1"),
            (&format!("{head} x"), 1, "`x` is too much"),
            (&head.replace("Links", "Lunks"), 1, "Lunks"),
            (&head.replace("agents 1", "agents 99"), 1, "expected 1 to 3"),
            (
                &format!("# c\n{head}\n\nat 5 smash"),
                4,
                "no fault is called `smash`",
            ),
            (
                &format!("{head}\nat 5 stall agent0 to moon for 1"),
                2,
                "agent or site",
            ),
            (&format!("{head}\nat -5 cut agent0"), 2, "expected 0"),
            (&format!("{head}\nat 5 cut site"), 2, "agentN"),
            (
                &head.replace("agents 1", "agents 1 sites 9"),
                1,
                "expected 1 to 3",
            ),
            (&format!("{head}\nat 5 gone at moon"), 2, "siteN"),
        ] {
            let error = text.parse::<Plan>().unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
        let good = format!("# why\n{head} # shape\nat 1_000 cut agent0 # here\n");
        assert_eq!(
            good.parse::<Plan>().unwrap().faults,
            [(1_000, Fault::Cut { agent: 0 })]
        );
    }
}
