//! One run: hosts on a network, a plan of what breaks, and what must hold in the end.

use crate::agent::{Agent, AgentDisk};
use crate::limits::{AGENTS, BREAKS_S, DATAGRAMS_MAX, DRAIN, SETTLES, SITES};
use crate::oracle::{self, Broken, Counts, Stored, Told};
use crate::pki::Pki;
use crate::plan::{Fault, Plan};
use crate::site::{Site, stored};
use crate::trace::{Datagrams, Trace};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{SimDisk, Survival};
use tributary_protocol::ids::{AgentId, AgentUuid};
use turmoil::Sim;

const PORT: u16 = 7443;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Every datagram of it.
    pub datagrams: Datagrams,
    /// What became of what was sealed.
    pub counts: Counts,
    /// Sessions of all agents.
    pub sessions: u64,
    /// Times that a process was started again.
    pub restarts: u64,
    /// How often what an aggregator had not synced was gone.
    pub power_cuts: u64,
    /// When all was drained.
    pub drained: Duration,
}

fn name(agent: usize) -> String {
    format!("agent{agent}")
}

fn site_name(site: usize) -> String {
    format!("site{site}")
}

/// The aggregators of an agent, by its own first.
fn list_of(agent: usize) -> impl Iterator<Item = usize> {
    (0..SITES).map(move |next| (agent + next) % SITES)
}

struct World<'a> {
    sim: Sim<'a>,
    sites: Vec<Site>,
    /// What was durable when it was last looked at.
    durable: Vec<Stored>,
    agents: Vec<Agent>,
    trace: Arc<Trace>,
    restarts: u64,
    power_cuts: u64,
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
    let mut settled = None;
    loop {
        let now = world.sim.elapsed();
        while let Some((_, fault, begins)) = events.next_if(|(at, _, _)| *at <= now) {
            world.apply(fault, begins)?;
        }
        world.step()?;
        match events.peek().is_none() && world.is_drained() {
            true if now >= *settled.get_or_insert(now) + SETTLES => break,
            true => {}
            false => settled = None,
        }
        if world.trace.is_full() {
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
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .udp_capacity(DATAGRAMS_MAX)
            // A narrow band: more of it is a network that puts everything out of order.
            .min_message_latency(Duration::from_millis(20))
            .max_message_latency(Duration::from_millis(30))
            .tick_duration(Duration::from_millis(10))
            .simulation_duration(Duration::from_secs(BREAKS_S) + 2 * DRAIN)
            .build();
        let mut world = Self {
            sim,
            sites: Vec::new(),
            durable: vec![Stored::new(); SITES],
            agents: Vec::new(),
            trace: Arc::default(),
            restarts: 0,
            power_cuts: 0,
        };
        (0..SITES).for_each(|at| world.add_site(at, plan.seed, &pki));
        for (at, id) in ids.into_iter().enumerate() {
            world.add_agent((at, id), plan.seed, &pki);
        }
        Ok(world)
    }

    fn add_site(&mut self, at: usize, seed: u64, pki: &Arc<Pki>) {
        let site = Site {
            disk: Arc::new(Mutex::new(SimDisk::new(seed.wrapping_add(at as u64)))),
            files: pki.site.clone(),
            at,
            address: (self.sim.lookup(site_name(at)), PORT).into(),
            seed,
            trace: Arc::clone(&self.trace),
        };
        // The files are there as long as somebody may read them.
        let (serving, files) = (site.clone(), Arc::clone(pki));
        self.sim.host(site_name(at), move || {
            let _files = Arc::clone(&files);
            serving.clone().run()
        });
        self.sites.push(site);
    }

    fn add_agent(&mut self, (at, id): (usize, AgentId), seed: u64, pki: &Pki) {
        let address = |site: usize| self.sites.get(site).map(|site| site.address);
        let sites: Vec<SocketAddr> = list_of(at).filter_map(address).collect();
        let Some(identity) = pki.agents.get(at).cloned() else {
            return;
        };
        let agent = Agent {
            disk: AgentDisk::default(),
            id,
            host: self.sim.lookup(name(at)),
            identity,
            sites,
            seed: seed.wrapping_mul(31).wrapping_add(at as u64),
            trace: Arc::clone(&self.trace),
        };
        let sending = agent.clone();
        self.sim.host(name(at), move || sending.clone().run());
        self.agents.push(agent);
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
        match fault {
            Fault::Partition(..) | Fault::Island(_) | Fault::Deaf(..) | Fault::Hold(..) => {
                self.links(fault, begins);
            }
            Fault::Drop(of) => {
                let rate = if begins { 1.0 / of as f64 } else { 0.0 };
                self.sim.set_fail_rate(rate);
            }
            Fault::CrashAgent(agent) if begins => self.sim.crash(name(agent)),
            Fault::CrashAgent(agent) => self.bounce(name(agent)),
            Fault::Shed(agent, most) => {
                if let Some(agent) = self.agents.get(agent).filter(|_| begins) {
                    agent.disk.shed(most);
                }
            }
            Fault::PowerCut(site, seed) if begins => self.site_ends(site, Some(seed))?,
            Fault::Kill(site) if begins => self.site_ends(site, None)?,
            Fault::PowerCut(site, _) | Fault::Kill(site) => self.bounce(site_name(site)),
            Fault::FailSyncs(site, times) => {
                let disk = self.sites.get(site).map(Site::disk);
                match disk {
                    Some(disk) if begins => disk.fail_syncs(times),
                    Some(disk) => disk.heal(),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Links break, or are mended.
    fn links(&mut self, fault: Fault, begins: bool) {
        let sim = &mut self.sim;
        match (fault, begins) {
            (Fault::Partition(agent, site), true) => sim.partition(name(agent), site_name(site)),
            (Fault::Island(site), true) => {
                (0..AGENTS).for_each(|agent| sim.partition(name(agent), site_name(site)));
            }
            (Fault::Island(site), false) => {
                (0..AGENTS).for_each(|agent| sim.repair(name(agent), site_name(site)));
            }
            (Fault::Deaf(agent, site), true) => {
                sim.partition_oneway(site_name(site), name(agent));
            }
            (Fault::Partition(agent, site) | Fault::Deaf(agent, site), false) => {
                sim.repair(name(agent), site_name(site));
            }
            (Fault::Hold(agent, site), true) => sim.hold(name(agent), site_name(site)),
            (Fault::Hold(agent, site), false) => sim.release(name(agent), site_name(site)),
            _ => {}
        }
    }

    /// A process that ended begins again.
    fn bounce(&mut self, host: String) {
        if !self.sim.is_host_running(host.clone()) {
            self.sim.bounce(host);
            self.restarts += 1;
        }
    }

    /// An aggregator ends; `power`: what was not synced survives by this, or all of it.
    fn site_ends(&mut self, at: usize, power: Option<u64>) -> Result<(), Broken> {
        self.sim.crash(site_name(at));
        let Some(site) = self.sites.get(at) else {
            return Ok(());
        };
        let disk = site.disk();
        let after = match power {
            Some(seed) if seed % 3 == 0 => disk.crash(Survival::Nothing),
            Some(seed) => disk.crash(Survival::RandomHalf(seed)),
            None => disk.kill(),
        };
        self.power_cuts += u64::from(power.is_some());
        *site.disk.lock().unwrap_or_else(PoisonError::into_inner) = after;
        // What was acknowledged is there, whatever is looked at with.
        let durable = self.durable()?;
        oracle::keeps(&self.told(), &durable)
    }

    /// What of each journal would be there if the power went now: all that ever was.
    fn durable(&mut self) -> Result<Vec<Stored>, Broken> {
        let mut durable = Vec::new();
        for (at, (site, before)) in self.sites.iter().zip(&self.durable).enumerate() {
            let disk = site.disk().fork(Salts::Same).crash(Survival::Nothing);
            let now = stored(&disk, at)?;
            oracle::goes_on(at, before, &now)?;
            durable.push(now);
        }
        self.durable.clone_from(&durable);
        Ok(durable)
    }

    fn told(&self) -> Vec<Told> {
        let told = |agent: &Agent| agent.disk.told(&agent.id);
        self.agents.iter().map(told).collect()
    }

    /// What must hold at the end.
    fn judge(mut self) -> Result<Outcome, Broken> {
        let durable = self.durable()?;
        let homes: Vec<usize> = (0..AGENTS).flat_map(|at| list_of(at).next()).collect();
        Ok(Outcome {
            counts: oracle::judge(&self.told(), &durable, &homes)?,
            datagrams: self.trace.datagrams(),
            sessions: self.agents.iter().map(|it| it.disk.sessions()).sum(),
            restarts: self.restarts,
            power_cuts: self.power_cuts,
            drained: self.sim.elapsed(),
        })
    }
}
