//! A plan of the whole as text.
//!
//! `whole 1 seed 7 profile Sites agents 1 made 0 devices 2 messages 90 every 100000 rate 500000
//! flush 5000000 journal 32768 spool 0 policy drop-oldest heal 9000000`, then one fault a line:
//! `at 3150000 power site after 7 syncs survival half:99 down 800000`. `#` begins a comment.

use super::{Fault, How, Node, Plan, Profile, Shape};
use crate::limits::{
    AGENTS_MAX, DEVICES_MAX, FAULTS_MAX, JOURNAL_BYTES_LEAST, MESSAGES_MAX, PLAN_US_MAX,
    SEGMENT_BYTES, SPOOL_SEGMENTS_MAX,
};
use std::fmt;
use std::str::FromStr;
use tributary_agent::spool::Policy;
use tributary_journal::Survival;
use tributary_journal::sim_disk::{After, FileClass};
use tributary_world::limits::{RATE_MAX, RATE_MIN};
use tributary_world::net::Side;
use tributary_world::plan::PlanError;
use tributary_world::words::Words;

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(place) => write!(f, "agent{place}"),
            Self::Site => write!(f, "site"),
        }
    }
}

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
            made,
            devices,
            messages,
            every_us,
            rate,
            flush_us,
            journal,
            spool,
            policy,
        } = shape;
        let policy = name_of(*policy);
        writeln!(
            f,
            "whole 1 seed {seed} profile {profile} agents {agents} made {made} devices {devices} \
             messages {messages} every {every_us} rate {rate} flush {flush_us} \
             journal {journal} spool {spool} policy {policy} heal {heal_at}"
        )?;
        let mut faults = self.faults.iter();
        faults.try_for_each(|(at, fault)| writeln!(f, "at {at} {fault}"))
    }
}

fn name_of(policy: Policy) -> &'static str {
    let mut names = Policy::NAMES.into_iter();
    names
        .find(|(_, it)| *it == policy)
        .map_or("", |(name, _)| name)
}

fn side(side: &Side) -> &'static str {
    match side {
        Side::Agent => "agent",
        Side::Site => "site",
    }
}

fn after(after: &After) -> String {
    match after {
        After::Between => "0 operations".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => write!(f, "killed"),
            Self::Power(Survival::Nothing) => write!(f, "nothing"),
            Self::Power(Survival::All) => write!(f, "all"),
            Self::Power(Survival::RandomHalf(seed)) => write!(f, "half:{seed}"),
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
            Self::Double { agent, batches } => write!(f, "double agent{agent} batches {batches}"),
            Self::Down {
                node,
                after: when,
                how,
                down_us,
            } => {
                let when = after(when);
                write!(f, "power {node} after {when} survival {how} down {down_us}")
            }
            Self::FailSyncs { node, times } => write!(f, "failsyncs {node} times {times}"),
            Self::FailDirSyncs { node, times } => write!(f, "faildirsyncs {node} times {times}"),
            Self::FailWrites { node, times } => write!(f, "failwrites {node} times {times}"),
            Self::FailGaps { agent, times } => write!(f, "failgaps agent{agent} times {times}"),
            Self::GapsDown {
                agent,
                write: at,
                how,
                down_us,
            } => {
                write!(
                    f,
                    "gapspower agent{agent} write {at} survival {how} down {down_us}"
                )
            }
            Self::Full { node, us } => write!(f, "full {node} for {us}"),
            Self::Flip { node, class } => write!(f, "flip {node} class {class:?}"),
            Self::Clock { node, us } => write!(f, "clock {node} by {us}"),
            Self::DoorCut { agent, device } => write!(f, "doorcut agent{agent} device {device}"),
            Self::Rules { agent } => write!(f, "rules agent{agent}"),
            Self::Slow { us } => write!(f, "slow site for {us}"),
            Self::StoreRefuses { times } => write!(f, "store refuses {times}"),
            Self::StoreUnheard { times } => write!(f, "store unheard {times}"),
            Self::StorePower {
                changes,
                made,
                down_us,
            } => {
                let made = if *made { "made" } else { "lost" };
                write!(f, "store power {changes} change {made} down {down_us}")
            }
        }
    }
}

fn us(words: &mut Words<'_>, name: &str) -> Result<i64, String> {
    words.number(name, (0, PLAN_US_MAX))
}

fn node(words: &mut Words<'_>) -> Result<Node, String> {
    let word = words.next("agentN or site")?;
    if word == "site" {
        return Ok(Node::Site);
    }
    let place = word.strip_prefix("agent").and_then(|n| n.parse().ok());
    let place = place.ok_or_else(|| format!("`{word}` where `agentN` or `site` is expected"))?;
    Ok(Node::Agent(place))
}

fn agent(words: &mut Words<'_>) -> Result<usize, String> {
    match node(words)? {
        Node::Agent(place) => Ok(place),
        Node::Site => Err("`site` where `agentN` is expected".to_owned()),
    }
}

fn side_of(words: &mut Words<'_>, name: &str) -> Result<Side, String> {
    words.one_of(name, &[("agent", Side::Agent), ("site", Side::Site)])
}

fn when(words: &mut Words<'_>) -> Result<After, String> {
    let count = words.number("after", (0, u64::from(u32::MAX)))?;
    Ok(match (count, words.next("operations")?) {
        (0, _) => After::Between,
        (count, "operations") => After::Operations(count),
        (count, "syncs") => After::Syncs(count),
        (count, "renames") => After::Renames(count),
        (_, other) => return Err(format!("`{other}`: expected operations, syncs or renames")),
    })
}

fn how(words: &mut Words<'_>) -> Result<How, String> {
    words.word("survival")?;
    let word = words.next("survival")?;
    Ok(match word {
        "killed" => How::Kill,
        "nothing" => How::Power(Survival::Nothing),
        "all" => How::Power(Survival::All),
        other => {
            let seed = other
                .strip_prefix("half:")
                .and_then(|seed| seed.parse().ok());
            let seed = seed.ok_or_else(|| format!("survival {other}"))?;
            How::Power(Survival::RandomHalf(seed))
        }
    })
}

fn times(words: &mut Words<'_>) -> Result<u32, String> {
    words.number("times", (1, 1_000))
}

fn class(words: &mut Words<'_>) -> Result<FileClass, String> {
    words.word("class")?;
    let word = words.next("class")?;
    let mut all = FileClass::ALL.into_iter();
    let found = all.find(|class| format!("{class:?}") == word);
    found.ok_or_else(|| format!("no class is called `{word}`"))
}

fn store(words: &mut Words<'_>) -> Result<Fault, String> {
    let count = |words: &mut Words<'_>| -> Result<u32, String> {
        let word = words.next("how many")?;
        word.parse().map_err(|_| format!("`{word}` is no number"))
    };
    Ok(match words.next("refuses, unheard or power")? {
        "refuses" => Fault::StoreRefuses {
            times: count(words)?,
        },
        "unheard" => Fault::StoreUnheard {
            times: count(words)?,
        },
        "power" => Fault::StorePower {
            changes: u64::from(count(words)?),
            made: words.one_of("change", &[("made", true), ("lost", false)])?,
            down_us: us(words, "down")?,
        },
        other => return Err(format!("a store does not do `{other}`")),
    })
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
        "double" => Fault::Double {
            agent: agent(words)?,
            batches: words.number("batches", (1, 1_000))?,
        },
        "power" => Fault::Down {
            node: node(words)?,
            after: when(words)?,
            how: how(words)?,
            down_us: us(words, "down")?,
        },
        "failsyncs" => Fault::FailSyncs {
            node: node(words)?,
            times: times(words)?,
        },
        "faildirsyncs" => Fault::FailDirSyncs {
            node: node(words)?,
            times: times(words)?,
        },
        "failwrites" => Fault::FailWrites {
            node: node(words)?,
            times: times(words)?,
        },
        "failgaps" => Fault::FailGaps {
            agent: agent(words)?,
            times: times(words)?,
        },
        "gapspower" => Fault::GapsDown {
            agent: agent(words)?,
            write: words.number("write", (1, 1_000))?,
            how: how(words)?,
            down_us: us(words, "down")?,
        },
        "full" => Fault::Full {
            node: node(words)?,
            us: us(words, "for")?,
        },
        "flip" => Fault::Flip {
            node: node(words)?,
            class: class(words)?,
        },
        "clock" => Fault::Clock {
            node: node(words)?,
            us: words.number("by", (-i64::MAX / 4, i64::MAX / 4))?,
        },
        "doorcut" => Fault::DoorCut {
            agent: agent(words)?,
            device: words.number("device", (0, DEVICES_MAX))?,
        },
        "rules" => Fault::Rules {
            agent: agent(words)?,
        },
        "slow" => {
            words.word("site")?;
            Fault::Slow {
                us: us(words, "for")?,
            }
        }
        "store" => store(words)?,
        other => return Err(format!("no fault is called `{other}`")),
    })
}

fn head(words: &mut Words<'_>) -> Result<Plan, String> {
    words.number("whole", (1, 1))?;
    let seed = words.number("seed", (0, u64::MAX))?;
    words.word("profile")?;
    let name = words.next("profile")?;
    let profile = Profile::ALL.into_iter().find(|it| it.to_string() == name);
    Ok(Plan {
        seed,
        profile: profile.ok_or_else(|| format!("no profile is called `{name}`"))?,
        shape: Shape {
            agents: words.number("agents", (1, AGENTS_MAX))?,
            made: words.number("made", (0, MESSAGES_MAX))?,
            devices: words.number("devices", (0, DEVICES_MAX))?,
            messages: words.number("messages", (0, MESSAGES_MAX))?,
            every_us: us(words, "every")?,
            rate: words.number("rate", (RATE_MIN, RATE_MAX))?,
            flush_us: us(words, "flush")?,
            journal: words.number("journal", (JOURNAL_BYTES_LEAST, SEGMENT_BYTES))?,
            spool: words.number("spool", (0, SPOOL_SEGMENTS_MAX))?,
            policy: words.one_of("policy", &Policy::NAMES)?,
        },
        heal_at: us(words, "heal")?,
        faults: Vec::new(),
    })
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
            what: "it begins with `whole 1 seed …`".to_owned(),
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
        for seed in 0..1_000 {
            let plan = Plan::draw(seed);
            let text = plan.to_string();
            assert_eq!(text.parse::<Plan>().unwrap(), plan, "{text}");
            lines += text.lines().count();
        }
        assert!(lines > 4_000, "{lines}");
    }

    #[test]
    fn what_is_no_plan_is_refused_with_its_line() {
        let head = Plan::draw(1).to_string();
        let head = head.lines().next().unwrap();
        for (text, line, what) in [
            ("", 1, "begins with"),
            ("plan 1", 1, "`whole` is expected"),
            (&format!("{head} x"), 1, "`x` is too much"),
            (&format!("{head}\n\nat 5 smash"), 3, "`smash`"),
            (&format!("{head}\nat 5 cut site"), 2, "agentN"),
            (
                &format!("{head}\nat 5 power site after 3 naps survival all down 1"),
                2,
                "naps",
            ),
            (
                &format!("{head}\nat 5 power site after 3 syncs survival some down 1"),
                2,
                "some",
            ),
            (&format!("{head}\nat 5 store eats 3"), 2, "eats"),
        ] {
            let error = text.parse::<Plan>().unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
    }
}
