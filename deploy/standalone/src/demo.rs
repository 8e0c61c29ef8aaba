//! `tributary demo`: a simulated fleet through the whole pipeline, and the comparison of what it
//! published with what is in the lake.

use crate::limits::{FLEET_READINGS_PER_S_MAX, PROGRESS_INTERVAL};
use crate::machine::{self, Machine};
use crate::report::{Summary, grouped};
use crate::settings::{Settings, SettingsError};
use anyhow::Context;
use clap::Args;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::Progress;
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary, SimError};
use tributary_sim::verify::{self, Report};

/// Arguments of `tributary demo`.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// How long the fleet publishes, as `30s` or `2m`; until Ctrl-C when left out
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How many sensors
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    sensors: u32,
    /// Readings a second of each
    #[arg(long, value_name = "HZ", default_value_t = 10.0)]
    rate: f64,
    /// What the fleet measures: the same seed gives the same fleet
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where everything durable lies; the lake is its folder `lake`
    #[arg(long, value_name = "DIR", default_value = "tributary-data")]
    data_dir: PathBuf,
    /// Print the result as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

impl Default for DemoArguments {
    fn default() -> Self {
        Self {
            duration: None,
            sensors: 1_000,
            rate: 10.0,
            seed: 1,
            data_dir: "tributary-data".into(),
            json: false,
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: expected a number with s, m or h, as 30s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("" | "s") => 1.0,
        Some("ms") => 0.001,
        Some("m") => 60.0,
        Some("h") => 3_600.0,
        _ => return Err(wrong()),
    };
    let seconds: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|_| wrong())
}

/// Runs the demo.
pub fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let rate = f64::from(arguments.sensors) * arguments.rate;
    if rate.is_nan() || rate <= 0.0 || rate > FLEET_READINGS_PER_S_MAX {
        let most = FLEET_READINGS_PER_S_MAX;
        let reason =
            format!("--sensors times --rate is {rate}: expected more than 0, at most {most}");
        return Err(SettingsError::Argument(reason).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(demo(arguments))
}

#[allow(clippy::print_stderr, reason = "what a program says to its user")]
async fn demo(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut signals = Signals::new()?;
    let defaults = Settings::default();
    let settings = Settings {
        data_dir: arguments.data_dir.clone(),
        mqtt: free_or_other("MQTT", defaults.mqtt)?,
        console: free_or_other("HTTP", defaults.console)?,
        decode: defaults.decode,
    };
    let machine = machine::start(&settings).await?;
    introduce(&arguments, &settings, &machine);

    let truth = settings.data_dir.join("demo-truth.bin");
    let fleet = Fleet::start(&arguments, machine.agent.mqtt, truth.clone());
    let published = fleet.watch(&machine, &mut signals, begun).await?;
    eprintln!("draining …");
    let uplink = machine.agent.uplink.clone();
    let drained = machine.drain().await?;
    let uplink_bytes = uplink.borrow().udp_bytes_sent;
    let elapsed = begun.elapsed().as_secs_f64();

    eprintln!("comparing the lake with what was published …");
    let lake = machine::lake_dir(&settings);
    let comparing = tokio::task::spawn_blocking(move || verify::compare(&lake, &truth));
    let report = comparing.await?.context("the lake can't be compared")?;
    let summary = Summary::new(&report, uplink_bytes, elapsed);
    show(&summary, &report, &published, arguments.json);
    if !drained {
        eprintln!("the agent was not drained in time");
    }
    let good = drained && report.is_clean() && summary.lost == 0 && summary.duplicates == 0;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The address itself, or a free port beside it when somebody else has it.
#[allow(clippy::print_stderr, reason = "what a program says to its user")]
fn free_or_other(what: &str, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    if TcpListener::bind(address).is_ok() {
        return Ok(address);
    }
    let free = TcpListener::bind((address.ip(), 0)).and_then(|socket| socket.local_addr());
    let free = free.with_context(|| format!("no free port for {what}"))?;
    eprintln!(
        "port {} is in use: {what} is on {free} instead",
        address.port()
    );
    Ok(free)
}

#[allow(clippy::print_stderr, reason = "what a program says to its user")]
fn introduce(arguments: &DemoArguments, settings: &Settings, machine: &Machine) {
    let (sensors, rate) = (arguments.sensors, arguments.rate);
    eprintln!("{sensors} sensors at {rate} Hz, seed {}", arguments.seed);
    eprintln!("MQTT     {}", machine.agent.mqtt);
    eprintln!(
        "status   http://{}/api/v1/status",
        machine.aggregator.http_addr()
    );
    eprintln!("lake     {}", machine::lake_dir(settings).display());
    if arguments.duration.is_none() {
        eprintln!("Ctrl-C ends it, and compares");
    }
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a program says to its user"
)]
fn show(summary: &Summary, report: &Report, published: &RunSummary, json: bool) {
    if !report.is_clean() {
        eprintln!(
            "{}",
            serde_json::to_string_pretty(report).unwrap_or_default()
        );
    }
    if published.unacknowledged + published.unsent > 0 {
        let (unacknowledged, unsent) = (published.unacknowledged, published.unsent);
        eprintln!("the fleet ended with {unacknowledged} unacknowledged and {unsent} unsent");
    }
    match json {
        true => println!("{}", serde_json::to_string(summary).unwrap_or_default()),
        false => println!("{summary}"),
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The running fleet.
struct Fleet {
    running: JoinHandle<Result<RunSummary, SimError>>,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Fleet {
    #[allow(
        clippy::disallowed_methods,
        reason = "watched until it ends, in `watch`"
    )]
    fn start(arguments: &DemoArguments, mqtt: SocketAddr, truth: PathBuf) -> Self {
        let mut publishing = Publishing::to(mqtt.to_string());
        publishing.truth = Some(truth);
        let mut config = RunConfig::new(publishing);
        config.sensors = arguments.sensors;
        config.rate_hz = arguments.rate;
        config.duration = arguments.duration;
        config.seed = arguments.seed;
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let running = tokio::spawn(sim::run(config, stop.clone(), Arc::clone(&progress)));
        Self {
            running,
            progress,
            stop,
        }
    }

    /// Says a line a second until the fleet ends, which a signal makes it do.
    async fn watch(
        mut self,
        machine: &Machine,
        signals: &mut Signals,
        begun: Instant,
    ) -> anyhow::Result<RunSummary> {
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        tick.tick().await;
        loop {
            tokio::select! {
                ended = &mut self.running => return Ok(ended??),
                () = signals.next() => self.stop.cancel(),
                _ = tick.tick() => self.say(machine, begun),
            }
        }
    }

    #[allow(clippy::print_stderr, reason = "what a program says to its user")]
    fn say(&self, machine: &Machine, begun: Instant) {
        let uplink = machine.agent.uplink.borrow();
        let journal = machine.aggregator.keeper();
        let per_reading = match journal.rows() {
            0 => "-".to_owned(),
            rows => format!("{:.2}", uplink.udp_bytes_sent as f64 / rows as f64),
        };
        eprintln!(
            "{:>4.0}s  published {}  acknowledged {}  at the aggregator {}  in the lake {}  \
             backlog {} batches  {per_reading} B/reading",
            begun.elapsed().as_secs_f64(),
            grouped(self.progress.published()),
            grouped(self.progress.acknowledged()),
            grouped(journal.rows()),
            grouped(machine.aggregator.lake().rows()),
            uplink.backlog_batches,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "-3s", "3 parsecs", "1e999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_in_use_gives_way() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_ne!(free_or_other("test", address).unwrap(), address);
    }
}
