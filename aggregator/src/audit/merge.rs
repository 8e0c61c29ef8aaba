//! Several aggregators' audits side by side: each number of a lane is committed by one of them
//! alone, or said to be in doubt; and what one says that others hold, they do. Definitions of
//! series go to each that lacks them. Pure; what each says of itself was compared before.

use super::report::{
    Finding, Findings, LaneReport, Report, Span, Verdict, say_findings, say_unsettled, spans,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use tributary_protocol::ids::Lane;

const NAME_ALL: &str = "name every aggregator that the agent was told of; where all are named, an \
                        acknowledged batch is lost: look for it in copies of their journals";
const LOOK_AGAIN: &str =
    "its audit is older than what this one was told: audit it again, and merge";

/// Who holds which numbers of a lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MergedLane {
    /// Tenant and UUID of the agent, with `/` between.
    pub agent: String,
    /// The buffer.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// The numbers of each aggregator that holds some.
    pub held: Vec<(String, Vec<Span>)>,
    /// Batches that some aggregator holds.
    pub batches: u64,
    /// Numbers below the greatest one that nobody holds.
    pub missing: Vec<Span>,
    /// Numbers that are in doubt.
    pub in_doubt: Vec<Span>,
}

/// Several audits as one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Merged {
    /// Data directory and journal of each.
    pub aggregators: Vec<(String, String)>,
    /// Every lane, by agent and buffer.
    pub lanes: Vec<MergedLane>,
    /// What is wrong: what each found by itself, and what two hold.
    pub findings: Vec<Finding>,
    /// How much more is wrong, of which nothing is said.
    pub findings_more: u64,
    /// What can't be told from these audits.
    pub unsettled: Vec<Finding>,
}

impl Merged {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.findings, &self.unsettled)
    }
}

/// What is wrong, and what can't be told.
#[derive(Default)]
struct Told {
    findings: Findings,
    unsettled: Findings,
}

/// Lays audits side by side. `later`: the same aggregators once more, in the same order, each after
/// all of `reports` were made; or `reports` again, where nobody could look once more. What one was
/// told that another holds is looked for in a look at that one which began after it was told.
pub fn merge(reports: &[Report], later: &[Report]) -> Merged {
    let mut told = Told::default();
    let mut findings = Findings::default();
    for (i, report) in reports.iter().enumerate() {
        let of = &report.data_dir;
        let by_itself = |wrong: &Finding| Finding {
            what: format!("in {of}: {}", wrong.what),
            ..wrong.clone()
        };
        let wrong = report.findings.iter().map(by_itself);
        wrong.for_each(|wrong| findings.push(wrong));
        findings.leave_out(report.findings_more);
        let unsure = report.unsettled.iter().map(by_itself);
        unsure.for_each(|unsure| told.unsettled.push(unsure));
        let before = reports.iter().take(i);
        if let Some(same) = before.into_iter().find(|other| other.log == report.log) {
            findings.push(Finding::general(
                format!(
                    "{} and {of} have the same journal {}",
                    same.data_dir, report.log
                ),
                "one is a copy of the other: name each aggregator once, and run one of the two \
                 alone",
            ));
        }
    }
    type Name<'a> = (&'a str, &'a str, &'a str);
    let mut by_lane: BTreeMap<Name<'_>, Vec<(&Report, &LaneReport)>> = BTreeMap::new();
    for report in reports {
        for lane in &report.lanes {
            let name = (&*lane.agent, &*lane.buffer, &*lane.lane);
            by_lane.entry(name).or_default().push((report, lane));
        }
    }
    told.findings = findings;
    let lanes = by_lane.values();
    let lanes = lanes.map(|all| merged(all, later, &mut told)).collect();
    let name = |report: &Report| (report.data_dir.clone(), report.log.clone());
    let (findings, findings_more) = told.findings.into_parts();
    Merged {
        aggregators: reports.iter().map(name).collect(),
        lanes,
        findings,
        findings_more,
        unsettled: told.unsettled.into_parts().0,
    }
}

fn committed(lane: &LaneReport) -> Vec<Span> {
    let runs = lane.committed.iter();
    runs.map(|run| (run.first, run.end)).collect()
}

fn merged(all: &[(&Report, &LaneReport)], later: &[Report], told: &mut Told) -> MergedLane {
    let definitions = all.iter().any(|(_, lane)| lane.lane == Lane::Series.name());
    let doubt = union(all.iter().flat_map(|(_, lane)| lane.in_doubt.clone()));
    let mut known: Vec<Span> = Vec::new();
    for (i, (report, lane)) in all.iter().enumerate() {
        let numbers = committed(lane);
        for (other, before) in all.iter().take(i) {
            let both = common(&committed(before), &numbers);
            let both = without(&both, &doubt);
            if both.is_empty() || definitions {
                continue;
            }
            let same = match sums_of(before, &both) == sums_of(lane, &both) {
                true => "with the same hash sum where that can be told",
                false => "with different hash sums",
            };
            let what = format!(
                "both {} and {} hold them, {same}, and neither says that they are in doubt",
                other.data_dir, report.data_dir
            );
            let todo = "their rows are there twice: drop one copy where both lakes are read, by \
                        agent, buffer, lane and batch";
            told.findings
                .push(Finding::of_names(lane.names(), both, what, todo));
        }
        known = union(known.into_iter().chain(numbers));
    }
    for (report, lane) in all {
        nowhere(report, lane, later, told);
    }
    let held = all.iter().map(|(report, lane)| {
        let numbers = committed(lane);
        (report.data_dir.clone(), numbers)
    });
    let end = known.last().map_or(0, |last| last.1);
    let name = all.first().map(|(_, lane)| *lane);
    let text = |of: fn(&LaneReport) -> &String| name.map(of).cloned().unwrap_or_default();
    MergedLane {
        agent: text(|lane| &lane.agent),
        buffer: text(|lane| &lane.buffer),
        lane: text(|lane| &lane.lane),
        held: held.filter(|(_, numbers)| !numbers.is_empty()).collect(),
        batches: known.iter().map(|(first, end)| end - first).sum(),
        missing: without(&[(0, end)], &known),
        in_doubt: doubt,
    }
}

/// What one says that others hold, and they do not.
fn nowhere(report: &Report, lane: &LaneReport, later: &[Report], told: &mut Told) {
    let of = &report.data_dir;
    let mut say = |numbers: Vec<Span>, what: String, is_sure: bool| {
        if numbers.is_empty() {
            return;
        }
        let (to, todo) = match is_sure {
            true => (&mut told.findings, NAME_ALL),
            false => (&mut told.unsettled, LOOK_AGAIN),
        };
        to.push(Finding::of_names(lane.names(), numbers, what, todo));
    };
    for elsewhere in &lane.elsewhere {
        let log = &elsewhere.log;
        let there = later.iter().find(|other| other.log == *log);
        let held = there.map_or_else(Vec::new, |other| held_by(other, lane));
        let is_sure = there.is_none_or(|other| knows(other, report, lane));
        let what = format!("{of} is told that journal {log} holds them, and it does not");
        say(without(&elsewhere.numbers, &held), what, is_sure);
    }
    let known = union(later.iter().flat_map(|other| held_by(other, lane)));
    let known = union(known.into_iter().chain(committed(lane)));
    let by_name = union(lane.elsewhere.iter().flat_map(|it| it.numbers.clone()));
    let below = without(&without(&[(0, lane.floor)], &known), &by_name);
    let others = later.iter().filter(|other| other.log != report.log);
    let is_sure = others.into_iter().all(|other| knows(other, report, lane));
    let what = format!("{of} is told that they were acknowledged, and none of these holds them");
    say(below, what, is_sure);
}

/// Whether a look at `other` began after all that `report` tells of, and says all of that lane.
fn knows(other: &Report, report: &Report, lane: &LaneReport) -> bool {
    let is_whole = lane_in(other, lane).is_none_or(|there| there.ranges_more == 0);
    is_whole && other.began_us >= report.at_us
}

fn lane_in<'a>(report: &'a Report, lane: &LaneReport) -> Option<&'a LaneReport> {
    let mut lanes = report.lanes.iter();
    lanes.find(|there| there.names() == lane.names())
}

fn held_by(report: &Report, lane: &LaneReport) -> Vec<Span> {
    lane_in(report, lane).map_or_else(Vec::new, committed)
}

/// The hash sums of those runs that are whole among `numbers`.
fn sums_of<'a>(lane: &'a LaneReport, numbers: &[Span]) -> Vec<(Span, &'a str)> {
    let runs = lane.committed.iter();
    let whole = runs.filter(|run| numbers.contains(&(run.first, run.end)));
    whole
        .map(|run| ((run.first, run.end), &*run.hash_sum))
        .collect()
}

/// All numbers, ascending and apart from each other.
fn union(all: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = all.filter(|(first, end)| first < end).collect();
    all.sort_unstable();
    let mut out: Vec<Span> = Vec::new();
    for (first, end) in all {
        match out.last_mut() {
            Some(last) if last.1 >= first => last.1 = last.1.max(end),
            _ => out.push((first, end)),
        }
    }
    out
}

/// The numbers of `a` that are not in `b`; both ascending and apart.
fn without(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    for (first, end) in a {
        let mut at = *first;
        for (from, to) in b.iter().filter(|(from, to)| from < end && to > first) {
            if at < *from {
                out.push((at, *from));
            }
            at = at.max(*to);
        }
        if at < *end {
            out.push((at, *end));
        }
    }
    out
}

/// The numbers that are in both.
fn common(a: &[Span], b: &[Span]) -> Vec<Span> {
    without(a, &without(a, b))
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (dir, log) in &self.aggregators {
            writeln!(f, "{dir}: journal {log}")?;
        }
        for lane in &self.lanes {
            writeln!(
                f,
                "\n{} buffer {} {}: {} batches",
                lane.agent, lane.buffer, lane.lane, lane.batches
            )?;
            for (dir, numbers) in &lane.held {
                writeln!(f, "  {dir}: {}", spans(numbers))?;
            }
            if !lane.missing.is_empty() {
                writeln!(f, "  nobody holds: {}", spans(&lane.missing))?;
            }
            if !lane.in_doubt.is_empty() {
                writeln!(f, "  in doubt: {}", spans(&lane.in_doubt))?;
            }
        }
        writeln!(f)?;
        let agree = "every batch is held by one aggregator alone, or in doubt";
        say_findings(f, agree, (&self.findings, self.findings_more))?;
        say_unsettled(f, &self.unsettled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn numbers(spans: &[Span]) -> BTreeSet<u64> {
        spans.iter().flat_map(|(first, end)| *first..*end).collect()
    }

    fn some() -> impl Strategy<Value = Vec<Span>> {
        let spans = proptest::collection::vec((0_u64..60, 0_u64..8), 0..12);
        spans.prop_map(|all| union(all.into_iter().map(|(first, n)| (first, first + n))))
    }

    proptest! {
        #[test]
        fn spans_are_sets(a in some(), b in some()) {
            let (left, right) = (numbers(&a), numbers(&b));
            prop_assert_eq!(numbers(&without(&a, &b)), &left - &right);
            prop_assert_eq!(numbers(&common(&a, &b)), &left & &right);
            let all = union(a.iter().chain(&b).copied());
            prop_assert_eq!(numbers(&all), &left | &right);
            for pair in all.windows(2) {
                prop_assert!(pair[0].1 < pair[1].0);
            }
        }
    }
}
