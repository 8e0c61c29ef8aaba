//! An agent that is killed at a chosen step of a commit, again and again, while a fleet publishes
//! and redelivers; at the end everything is looked for in the lake. Its readings have no numbers,
//! so that MQTT alone tells a second copy.
//!
//! `tests/shim/kill.c` does the killing, inside the agent: see there for what each point means.

use crate::dice::Dice;
use crate::limits::{KILL_COMMITS_MAX, KILLED_FLEET};
use crate::shim::Shim;
use crate::site::{Site, assert_clean, backlog_gone};
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Instant;
use tributary_sim::sim::RunSummary;
use tributary_sim::verify::Report;

/// Where in a commit the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Nothing of the frame is on disk.
    Unsynced,
    /// Half of it is.
    Torn,
    /// All of it is, and fdatasync was not called.
    Written,
    /// fdatasync has returned, and nothing is acknowledged.
    Synced,
    /// An acknowledgement has left.
    Acked,
}

impl Point {
    /// In the order of a commit.
    pub const ALL: [Self; 5] = [
        Self::Unsynced,
        Self::Torn,
        Self::Written,
        Self::Synced,
        Self::Acked,
    ];

    /// As the shim calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsynced => "unsynced",
            Self::Torn => "torn",
            Self::Written => "written",
            Self::Synced => "synced",
            Self::Acked => "acked",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// SIGKILLs between fdatasync and acknowledgement.
    pub synced: usize,
    /// SIGKILLs at each other point.
    pub others: usize,
    /// Quality of service of the fleet.
    pub qos: u8,
    /// When each comes.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// SIGKILLs, by point: in the order of [`Point::ALL`].
    pub kills: [usize; 5],
    /// What the fleet did.
    pub fleet: RunSummary,
    /// What the lake holds of it.
    pub report: Report,
    /// How long it took.
    pub seconds: f64,
}

/// The shim that kills, and what it says of that.
struct Killer(Shim);

impl Killer {
    fn log(&self) -> PathBuf {
        self.0.dir.path().join("kills.log")
    }

    /// What it did so far, oldest first.
    fn done(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs the agent until it is killed at `point` of its commit number `at`.
    fn kill(&self, site: &Site, point: Point, at: u64) {
        let (at, log) = (at.to_string(), self.log());
        let agent = site.agent_with(&[
            ("LD_PRELOAD", self.0.library.as_os_str()),
            ("KILL_POINT", OsStr::new(point.name())),
            ("KILL_AT", OsStr::new(&at)),
            ("KILL_LOG", log.as_os_str()),
        ]);
        let status = agent.ended();
        let log = site.path().join("agent.log");
        let words = || crate::process::tail(&log);
        assert_eq!(status.signal(), Some(9), "{status}\n{}", words());
        let expected = format!("{} {at}", point.name());
        assert_eq!(self.done().last(), Some(&expected), "{}", words());
    }
}

/// Kills as told, and lets everything come to its end.
///
/// # Panics
/// When anything acknowledged is lost, or doubled, or anything else is not as it should be.
pub fn run(what: Kills) -> Outcome {
    let begun = Instant::now();
    let mut dice = Dice::new(what.seed);
    let mut points = vec![Point::Synced; what.synced];
    for point in Point::ALL.iter().filter(|point| **point != Point::Synced) {
        points.extend(vec![*point; what.others]);
    }
    dice.shuffle(&mut points);

    let (shim, site) = (Killer(Shim::compile("kill")), Site::new("kills"));
    let mut aggregator = site.aggregator();
    aggregator.up();
    let (sensors, rate_hz) = KILLED_FLEET;
    let fleet = site.fleet_without_numbers(what.qos, sensors, rate_hz);
    for (done, point) in points.iter().enumerate() {
        shim.kill(&site, *point, 1 + dice.below(KILL_COMMITS_MAX));
        if (done + 1) % 100 == 0 {
            eprintln!(
                "{} of {} kills, {:?}",
                done + 1,
                points.len(),
                begun.elapsed()
            );
        }
    }
    let done = shim.done();
    assert_eq!(done.len(), points.len(), "one line for each kill");
    let kills = Point::ALL.map(|point| {
        let of = |line: &&String| line.split(' ').next() == Some(point.name());
        done.iter().filter(of).count()
    });
    let mut agent = site.agent();
    agent.up();
    let summary = fleet.end();
    backlog_gone(&agent);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
    assert!(summary.counts.resent > 0, "nothing was ever redelivered");
    Outcome {
        kills,
        fleet: summary,
        report,
        seconds: begun.elapsed().as_secs_f64(),
    }
}
