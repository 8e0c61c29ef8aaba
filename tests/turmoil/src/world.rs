//! One run: hosts on a network, a plan of what breaks, and what must hold in the end.

use crate::agent::{Agent, AgentDisk};
use crate::limits::{AGENTS, BREAKS_S, DATAGRAMS_MAX, DRAIN};
use crate::oracle::{self, Broken, Told};
use crate::pki::Pki;
use crate::plan::{Fault, Plan};
use crate::site::{Site, stored};
use crate::trace::{Datagrams, Trace};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{SimDisk, Survival};
use tributary_protocol::ids::{AgentId, AgentUuid};
use turmoil::Sim;

const SITE: &str = "site";
const PORT: u16 = 7443;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Every datagram of it.
    pub datagrams: Datagrams,
    /// Batches that were sealed.
    pub sealed: u64,
    /// Times that a process was started again.
    pub restarts: u64,
    /// When all was drained.
    pub drained: Duration,
}

fn name(agent: usize) -> String {
    format!("agent{agent}")
}

struct World<'a> {
    sim: Sim<'a>,
    site: Site,
    agents: Vec<Agent>,
    restarts: u64,
}

/// Runs a plan.
///
/// # Errors
/// What must not be.
pub fn run(plan: &Plan) -> Result<Outcome, Broken> {
    let mut world = World::new(plan).map_err(|error| Broken::Run(error.to_string()))?;
    let mut events: Vec<(Duration, Fault, bool)> = Vec::new();
    let heal = Duration::from_secs(BREAKS_S);
    for (begins, fault, lasts) in &plan.faults {
        events.push((*begins, *fault, true));
        events.push(((*begins + *lasts).min(heal), *fault, false));
    }
    events.sort_by_key(|(at, _, _)| *at);
    let mut events = events.into_iter().peekable();
    loop {
        let now = world.sim.elapsed();
        while let Some((_, fault, begins)) = events.next_if(|(at, _, _)| *at <= now) {
            world.apply(fault, begins)?;
        }
        world.step()?;
        if events.peek().is_none() && world.is_drained() {
            break;
        }
        if world.site.trace.is_full() {
            return Err(Broken::Storm);
        }
        if now > heal + DRAIN {
            return Err(Broken::NotDrained);
        }
    }
    world.judge()
}

impl World<'_> {
    fn new(plan: &Plan) -> Result<Self, Box<dyn std::error::Error>> {
        let ids = (0..AGENTS).map(|at| AgentId::new("t", AgentUuid([at as u8 + 1; 16])));
        let ids: Vec<AgentId> = ids.collect::<Result<_, _>>()?;
        let pki = Arc::new(Pki::new(&ids)?);
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .udp_capacity(DATAGRAMS_MAX)
            // A narrow band: more of it is a network that puts everything out of order.
            .min_message_latency(Duration::from_millis(20))
            .max_message_latency(Duration::from_millis(30))
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(BREAKS_S) + 2 * DRAIN)
            .build();
        let trace = Arc::new(Trace::default());
        let address = (sim.lookup(SITE), PORT).into();
        let site = Site {
            disk: Arc::new(Mutex::new(SimDisk::new(plan.seed))),
            files: pki.site.clone(),
            address,
            seed: plan.seed,
            trace: Arc::clone(&trace),
        };
        let (serving, files) = (site.clone(), Arc::clone(&pki));
        sim.host(SITE, move || {
            let _files = Arc::clone(&files);
            serving.clone().run()
        });
        let mut agents = Vec::new();
        for (at, (id, identity)) in ids.iter().zip(&pki.agents).enumerate() {
            let agent = Agent {
                disk: AgentDisk::default(),
                id: id.clone(),
                host: sim.lookup(name(at)),
                identity: identity.clone(),
                site: address,
                seed: plan.seed.wrapping_mul(31).wrapping_add(at as u64),
                trace: Arc::clone(&trace),
            };
            let sending = agent.clone();
            sim.host(name(at), move || sending.clone().run());
            agents.push(agent);
        }
        Ok(Self {
            sim,
            site,
            agents,
            restarts: 0,
        })
    }

    fn step(&mut self) -> Result<(), Broken> {
        let stepped = self.sim.step();
        stepped
            .map(|_| ())
            .map_err(|error| Broken::Run(error.to_string()))
    }

    fn is_drained(&self) -> bool {
        self.agents.iter().all(|agent| agent.disk.is_drained())
    }

    /// A fault begins, or ends.
    fn apply(&mut self, fault: Fault, begins: bool) -> Result<(), Broken> {
        let sim = &mut self.sim;
        match (fault, begins) {
            (Fault::Partition(agent), true) => sim.partition(name(agent), SITE),
            (Fault::Deaf(agent), true) => sim.partition_oneway(SITE, name(agent)),
            (Fault::Hold(agent), true) => sim.hold(name(agent), SITE),
            (Fault::Hold(agent), false) => sim.release(name(agent), SITE),
            (Fault::Partition(agent) | Fault::Deaf(agent), false) => {
                sim.repair(name(agent), SITE);
            }
            (Fault::Drop(of), true) => sim.set_fail_rate(1.0 / of as f64),
            (Fault::Drop(_), false) => sim.set_fail_rate(0.0),
            (Fault::CrashAgent(agent), true) => sim.crash(name(agent)),
            (Fault::CrashAgent(agent), false) => {
                if !sim.is_host_running(name(agent)) {
                    sim.bounce(name(agent));
                    self.restarts += 1;
                }
            }
            (Fault::PowerCut(seed), true) => self.site_ends(Some(seed))?,
            (Fault::Kill, true) => self.site_ends(None)?,
            (Fault::PowerCut(_) | Fault::Kill, false) => {
                if !sim.is_host_running(SITE) {
                    sim.bounce(SITE);
                    self.restarts += 1;
                }
            }
            (Fault::FailSyncs(times), true) => self.site.disk().fail_syncs(times),
            (Fault::FailSyncs(_), false) => self.site.disk().heal(),
        }
        Ok(())
    }

    /// The aggregator ends; `power`: what was not synced survives by this, or all of it.
    fn site_ends(&mut self, power: Option<u64>) -> Result<(), Broken> {
        self.sim.crash(SITE);
        let disk = self.site.disk();
        let after = match power {
            Some(seed) if seed % 3 == 0 => disk.crash(Survival::Nothing),
            Some(seed) => disk.crash(Survival::RandomHalf(seed)),
            None => disk.kill(),
        };
        // What was acknowledged is there, whatever is looked at with.
        oracle::keeps(&self.told(), &stored(&after.fork(Salts::Same))?)?;
        *self
            .site
            .disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = after;
        Ok(())
    }

    fn told(&self) -> Vec<Told> {
        let told = |agent: &Agent| agent.disk.told(&agent.id);
        self.agents.iter().map(told).collect()
    }

    /// What must hold at the end.
    fn judge(self) -> Result<Outcome, Broken> {
        let stored = stored(&self.site.disk().crash(Survival::Nothing))?;
        Ok(Outcome {
            sealed: oracle::judge(&self.told(), &stored)?,
            datagrams: self.site.trace.datagrams(),
            restarts: self.restarts,
            drained: self.sim.elapsed(),
        })
    }
}
