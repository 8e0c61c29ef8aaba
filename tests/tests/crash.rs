//! Agent and aggregator killed with SIGKILL, again and again, in the middle of a run.

use tributary_tests::dice::Dice;
use tributary_tests::process::{Process, wait_for};
use tributary_tests::site::{Fleet, Site, assert_clean, backlog_gone};

const SEED: u64 = 20_26;
const KILLS_OF_EACH: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Agent,
    Aggregator,
}

/// Waits until `more` batches are accepted by this life of the aggregator.
fn accepted(agent: &Process, aggregator: &Process, more: u64) {
    let count = || aggregator.number("/batches_accepted");
    let until = count() + more;
    let state = || format!("{}\n{}", agent.last_words(), aggregator.last_words());
    wait_for("accepted batches", state, || {
        (count() >= until).then_some(())
    });
}

/// Where in its life a process is killed: still starting, or after it did some work.
fn kill_agent(site: &Site, mut agent: Process, fleet: &Fleet, dice: &mut Dice) -> Process {
    match dice.below(5) {
        0 => {}
        1 => agent.up(),
        _ => fleet.acknowledged(1 + dice.below(600)),
    }
    agent.kill();
    site.agent()
}

fn kill_aggregator(site: &Site, agent: &Process, mut old: Process, dice: &mut Dice) -> Process {
    match dice.below(5) {
        0 => {}
        1 => old.up(),
        _ => accepted(agent, &old, 1 + dice.below(4)),
    }
    old.kill();
    site.aggregator()
}

#[test]
fn ten_kills_of_each_lose_and_double_nothing() {
    let site = Site::new("crash");
    let mut dice = Dice::new(SEED);
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    let fleet = site.fleet(200, 10.0);
    let mut victims = [Victim::Agent, Victim::Aggregator].repeat(KILLS_OF_EACH);
    dice.shuffle(&mut victims);
    for victim in victims {
        match victim {
            Victim::Agent => agent = kill_agent(&site, agent, &fleet, &mut dice),
            Victim::Aggregator => {
                aggregator = kill_aggregator(&site, &agent, aggregator, &mut dice);
            }
        }
    }
    agent.up();
    accepted(&agent, &aggregator, 1);
    let summary = fleet.end();
    backlog_gone(&agent);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
    assert!(
        summary.counts.reconnects > 0,
        "no kill of the agent was felt: {summary:?}"
    );
}
