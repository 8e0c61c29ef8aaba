//! `tributary demo --chaos`: the same fleet and the same comparison, while agent and aggregator are
//! killed and the link between them is cut.
//!
//! The plan decides what happens when; here it happens, and is said. Both are child processes of
//! this program, so that SIGKILL ends one of them and nothing else; the link is a relay in here.

mod plan;
mod process;

use crate::child::{ChildArguments, Role};
use crate::demo::{self, DemoArguments, Outcome};
use crate::fleet::{Fleet, Signals};
use crate::limits::PROGRESS_INTERVAL;
use crate::machine;
use crate::report::grouped;
use crate::settings::Settings;
use anyhow::Context;
use plan::{Part, Plan, Step};
use process::{Process, log_file};
use serde::Serialize;
use std::time::{Duration, Instant};
use tributary_settings::say;
use tributary_sim::relay::{Relay, Weather};
use tributary_sim::sim::RunSummary;
use tributary_uplink::authority;

/// The link when it is not cut: worse than most, better than some.
const WEATHER: Weather = Weather {
    lost: 10,
    doubled: 5,
    late: 10,
    damaged: 2,
};

/// How often what went down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blows {
    /// SIGKILLs that ended the agent.
    pub kills_agent: u64,
    /// SIGKILLs that ended the aggregator.
    pub kills_aggregator: u64,
    /// Times that the link was cut.
    pub link_cuts: u64,
}

/// Runs the fleet through it until both ends are drained.
pub async fn run(
    arguments: &DemoArguments,
    settings: &Settings,
    begun: Instant,
) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new()?;
    let data_dir = &settings.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("data directory {}", data_dir.display()))?;
    authority::open_or_create(&data_dir.join("pki"))?;
    for role in [Role::Agent, Role::Aggregator] {
        std::fs::write(log_file(data_dir, role), "").context("the log of a child")?;
    }
    let mut chaos = Chaos::start(settings, arguments.seed, begun).await?;
    introduce(arguments, settings);
    let truth = demo::truth_file(settings);
    let (fleet, alerts) = Fleet::start(arguments, settings.mqtt, truth)?;
    let published = chaos.watch(fleet, &mut signals, arguments.duration).await?;
    demo::say_draining();
    alerts.settle().await;
    let (agent, aggregator) = (chaos.agent.take(), chaos.aggregator.take());
    let drained = agent.context("the agent is back")?.drain().await?;
    aggregator
        .context("the aggregator is back")?
        .drain()
        .await?;
    Ok(Outcome {
        published,
        drained,
        uplink_bytes: chaos.relay.sent_bytes(),
        found: alerts.end().await?,
        blows: Some(chaos.blows),
    })
}

fn introduce(arguments: &DemoArguments, settings: &Settings) {
    demo::introduce(arguments, settings);
    let [agent, aggregator] =
        [Role::Agent, Role::Aggregator].map(|role| log_file(&settings.data_dir, role));
    say!("logs     {}", agent.display());
    say!("         {}", aggregator.display());
    say!("chaos: both are killed at random instants, and the link between them is cut");
}

/// What is killed and cut.
struct Chaos {
    plan: Plan,
    blows: Blows,
    agent: Option<Process>,
    aggregator: Option<Process>,
    relay: Relay,
    agent_arguments: ChildArguments,
    aggregator_arguments: ChildArguments,
    /// Since when the program runs: for people.
    begun: Instant,
    /// Since when the plan runs.
    planned: Instant,
    /// Since when agent, aggregator and link are down.
    down_since: [Option<Instant>; 3],
}

/// What woke the loop.
enum Event {
    FleetEnded(anyhow::Result<RunSummary>),
    Signal,
    Due,
    Tick,
    Died(Role),
}

impl Chaos {
    /// Starts both ends, and waits until they are up.
    async fn start(settings: &Settings, seed: u64, begun: Instant) -> anyhow::Result<Self> {
        let uplink = machine::free_address(settings.mqtt.ip());
        let uplink = uplink.context("no free port for the uplink")?;
        let relay = Relay::start(uplink, WEATHER, seed).context("the relay")?;
        let child = |role, uplink| ChildArguments {
            role,
            data_dir: settings.data_dir.clone(),
            mqtt: settings.mqtt,
            console: settings.console,
            uplink,
        };
        let agent_arguments = child(Role::Agent, relay.address);
        let aggregator_arguments = child(Role::Aggregator, uplink);
        let mut agent = Process::start(&agent_arguments)?;
        let mut aggregator = Process::start(&aggregator_arguments)?;
        agent.up().await?;
        aggregator.up().await?;
        Ok(Self {
            plan: Plan::new(seed),
            blows: Blows::default(),
            agent: Some(agent),
            aggregator: Some(aggregator),
            relay,
            agent_arguments,
            aggregator_arguments,
            begun,
            planned: Instant::now(),
            down_since: [None; 3],
        })
    }

    /// Follows the plan and says a line a second until the fleet has ended. When it stops
    /// measuring, after its time or a signal, all calms down.
    async fn watch(
        &mut self,
        mut fleet: Fleet,
        signals: &mut Signals,
        duration: Option<Duration>,
    ) -> anyhow::Result<RunSummary> {
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        tick.tick().await;
        loop {
            if duration.is_some_and(|duration| self.planned.elapsed() >= duration) {
                self.plan.calm(self.planned.elapsed());
            }
            match self.next_event(&mut fleet, signals, &mut tick).await {
                Event::FleetEnded(ended) => {
                    self.plan.calm(self.planned.elapsed());
                    self.follow().await?;
                    return ended;
                }
                Event::Signal => {
                    fleet.stop();
                    self.plan.calm(self.planned.elapsed());
                }
                Event::Due => self.follow().await?,
                Event::Tick => self.say(&fleet),
                Event::Died(role) => return Err(self.ended_by_itself(role).await),
            }
        }
    }

    /// The only place where it waits. Cancel safe: whatever is not taken up is still there.
    async fn next_event(
        &mut self,
        fleet: &mut Fleet,
        signals: &mut Signals,
        tick: &mut tokio::time::Interval,
    ) -> Event {
        let due = self.plan.poll_timeout().map(|due| self.planned + due);
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = fleet.ended() => Event::FleetEnded(ended),
            () = signals.next() => Event::Signal,
            () = due => Event::Due,
            _ = tick.tick() => Event::Tick,
            () = ended(&mut self.agent) => Event::Died(Role::Agent),
            () = ended(&mut self.aggregator) => Event::Died(Role::Aggregator),
        }
    }

    /// Does what the plan says is due.
    async fn follow(&mut self) -> anyhow::Result<()> {
        while let Some(step) = self.plan.next_step(self.planned.elapsed()) {
            match step {
                Step::Down(part) => self.take_down(part).await?,
                Step::Up(part) => self.bring_back(part)?,
            }
        }
        Ok(())
    }

    async fn take_down(&mut self, part: Part) -> anyhow::Result<()> {
        let (victim, count) = match part {
            Part::Agent => (self.agent.take(), &mut self.blows.kills_agent),
            Part::Aggregator => (self.aggregator.take(), &mut self.blows.kills_aggregator),
            Part::Link => {
                self.relay.cut();
                (None, &mut self.blows.link_cuts)
            }
        };
        *count += 1;
        let count = *count;
        if let Some(since) = self.down_since.get_mut(part as usize) {
            *since = Some(Instant::now());
        }
        match victim {
            None => self.note(format_args!("link        cut ({count})")),
            Some(victim) => {
                let (role, age) = (victim.role(), victim.age().as_secs_f64());
                victim.kill().await?;
                self.note(format_args!(
                    "{role:<10}  SIGKILL ({count}) after {age:.1} s"
                ));
            }
        }
        Ok(())
    }

    fn bring_back(&mut self, part: Part) -> anyhow::Result<()> {
        let since = self
            .down_since
            .get_mut(part as usize)
            .and_then(Option::take);
        let after = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let (role, arguments, place) = match part {
            Part::Agent => (Role::Agent, &self.agent_arguments, &mut self.agent),
            Part::Aggregator => {
                let place = &mut self.aggregator;
                (Role::Aggregator, &self.aggregator_arguments, place)
            }
            Part::Link => {
                self.relay.mend();
                self.note(format_args!("link        mended after {after:.1} s"));
                return Ok(());
            }
        };
        *place = Some(Process::start(arguments)?);
        self.note(format_args!("{role:<10}  started again after {after:.1} s"));
        Ok(())
    }

    async fn ended_by_itself(&mut self, role: Role) -> anyhow::Error {
        let place = match role {
            Role::Agent => &mut self.agent,
            Role::Aggregator => &mut self.aggregator,
        };
        match place {
            Some(process) => process.ended_by_itself().await,
            None => anyhow::anyhow!("the {role} ended while it was down"),
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        say!("{:>6.1}s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn say(&self, fleet: &Fleet) {
        let waiting = |process: &Option<Process>, what| match process.as_ref().map(Process::report)
        {
            None => "down".to_owned(),
            Some(None) => "starting".to_owned(),
            Some(Some(report)) => format!("{} batches {what}", grouped(report.waiting)),
        };
        let Blows {
            kills_agent,
            kills_aggregator,
            link_cuts,
        } = self.blows;
        self.note(format_args!(
            "published {}  acknowledged {}  agent: {}  aggregator: {}  \
             killed {kills_agent} + {kills_aggregator} times, cut {link_cuts}{}",
            grouped(fleet.progress.published()),
            grouped(fleet.progress.acknowledged()),
            waiting(&self.agent, "unsent"),
            waiting(&self.aggregator, "unwritten"),
            demo::alerts_so_far(fleet),
        ));
    }
}

/// Waits until a process has ended though nobody killed it; for ever, when it is down. Cancel safe.
async fn ended(process: &mut Option<Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}
