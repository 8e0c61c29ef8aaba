//! An agent on a file system of 64 MB that somebody else fills, while readings come in and the link
//! is cut: it does not exit and does not wedge, drains when the link is back, and declares every
//! loss.

use crate::limits::GIVES_WAY_READINGS_MAX;
use crate::process::{Process, wait_for};
use crate::programs::scratch;
use crate::site::{Fleet, Site, backlog_gone};
use crate::small_disk::{Filler, SmallDisk};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How the agent fares.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What gives way.
    pub policy: &'static str,
    /// How many sensors.
    pub sensors: u32,
    /// Readings a second of each.
    pub rate_hz: f64,
    /// Whether to wait, first, until the agent's own blocks are full, too, and its policy is at
    /// work: what is a minute of readings, or more.
    pub gives_way: bool,
    /// How long the disk stays full, then.
    pub full: Duration,
}

impl Run {
    fn storage(&self) -> String {
        // More than the file system has, so that it is what is full. Small batches fill it sooner.
        format!(
            "reserve_bytes = \"1 MiB\"\n\
             [wal]\nquota_bytes = \"64 MiB\"\n\
             [spool]\nquota_bytes = \"256 MiB\"\nseal_delay_ms = 10\n\
             [spool.lanes.telemetry]\npolicy = \"{}\"\n",
            self.policy
        )
    }

    /// Runs it; what became of what was published: a row of the crash matrix, and more.
    ///
    /// # Errors
    /// When there is no such file system, for want of the right to mount one.
    ///
    /// # Panics
    /// When the agent exits, wedges, or hides a loss.
    pub fn run(&self) -> Result<Value, String> {
        let name = format!("full-disk-{}", self.policy);
        let place = scratch(&name);
        let disk = SmallDisk::mount(place.path())?;
        let site = Site::new(&name).storing(&disk.path().join("agent"), &self.storage());
        let mut agent = site.agent();
        agent.up();
        let fleet = site.fleet(self.sensors, self.rate_hz);
        fleet.acknowledged(5_000);

        // Somebody takes what is left. There is no aggregator: the link is cut.
        let filler = Filler::start(disk.path());
        wait_for(
            "a full disk",
            || agent.state(),
            || (filler.found_full() >= 3).then_some(()),
        );
        if self.policy != "block" {
            // In its own blocks it goes on.
            fleet.acknowledged(u64::from(self.sensors) * 20);
        }
        let before = fleet.progress.acknowledged();
        if self.gives_way {
            self.wait_until_it_gives_way(&mut agent, &fleet);
        }
        let own_blocks = fleet.progress.acknowledged() - before;
        wait_for_full(&mut agent, Instant::now(), self.full);
        let shed = agent.counter("tributary_agent_shed_readings_total", "");
        let refused = agent.counter("tributary_agent_refused_readings_total", "");
        let blocked = agent.counter(BLOCKED, "");
        let at_full = fleet.progress.acknowledged();

        // The link is back while the disk is still full; then the disk is freed, too.
        let mut aggregator = site.aggregator();
        aggregator.up();
        let drained_some = || {
            let batches = aggregator.number("/batches_accepted");
            (batches > 20 && fleet.progress.acknowledged() > at_full).then_some(())
        };
        wait_for("it to drain", || agent.state(), drained_some);
        filler.free();
        let summary = fleet.end();
        backlog_gone(&agent);
        assert!(agent.is_up());
        let report = site.settle(agent, aggregator);
        let (audit, _) = site.audit();
        let findings = audit["findings"].as_array().map_or(0, Vec::len);

        let declared = report.declared;
        let row = json!({
            "kind": "full disk",
            "fault": format!("an ext4 of 64 MB without a free block, `{}`", self.policy),
            "runs": 1,
            "published": report.published,
            "own_blocks": own_blocks,
            "at_full": at_full,
            "acknowledged": report.acknowledged,
            "delivered": report.delivered,
            "declared": declared,
            "shed": shed,
            "refused": refused,
            "excused": 0,
            "set_apart": 0,
            "lost": report.lost.saturating_sub(declared),
            "doubled": report.duplicates,
            "altered": report.changed + report.foreign,
            "told": 0,
            "repairs": u64::from(findings > 0),
        });
        assert_eq!(report.acknowledged, summary.counts.acknowledged);
        assert_eq!(report.declared_unknown, 0, "{report:#?}");
        assert_eq!(
            (report.duplicates, report.changed, report.foreign),
            (0, 0, 0),
            "{report:#?}"
        );
        assert_eq!(report.unreadable, []);
        // Every published reading was acknowledged: it is in the lake, or declared there.
        assert_eq!(report.published, report.acknowledged);
        assert_eq!(report.published, report.delivered + declared, "{report:#?}");
        assert_eq!(report.lost, declared);
        match self.policy {
            "block" => assert_eq!((declared, blocked > 0), (0, self.gives_way)),
            _ if self.gives_way => assert!(declared > 0, "nothing gave way: {report:#?}"),
            _ => {}
        }
        assert_eq!(findings, 0, "{audit:#}");
        Ok(row)
    }

    /// Waits until the policy is at work.
    ///
    /// # Panics
    /// When it never is, or nothing is acknowledged any more although it is not.
    fn wait_until_it_gives_way(&self, agent: &mut Process, fleet: &Fleet) {
        let counter = match self.policy {
            "drop-oldest" => "tributary_agent_shed_readings_total",
            "drop-newest" => "tributary_agent_refused_readings_total",
            _ => BLOCKED,
        };
        let first = fleet.progress.acknowledged();
        while agent.counter(counter, "") == 0 {
            assert!(agent.is_up(), "alive on a full disk");
            let acknowledged = fleet.progress.acknowledged() - first;
            assert!(
                acknowledged < GIVES_WAY_READINGS_MAX,
                "{acknowledged} readings were taken, and `{}` was never at work: {counter} is 0",
                self.policy
            );
            // tidy: sleep because another process says nothing by itself: it has to be asked again
            std::thread::sleep(LOOK);
        }
    }
}

/// Is 1 while sealed readings wait for the disk.
const BLOCKED: &str = "tributary_agent_spool_blocked";
/// How often it is looked whether the agent is alive on a full disk.
const LOOK: Duration = Duration::from_millis(200);

/// Keeps an eye on the agent while the disk is full.
fn wait_for_full(agent: &mut Process, begun: Instant, full: Duration) {
    while begun.elapsed() < full {
        assert!(agent.is_up(), "alive on a full disk");
        // tidy: sleep because the test is about time on a full disk
        std::thread::sleep(LOOK);
    }
}
