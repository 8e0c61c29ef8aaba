//! `tributary demo`: a simulated fleet through the whole pipeline, and the comparison of what it
//! published with what is in the lake.

use crate::alerts::Found;
use crate::chaos::{self, Blows};
use crate::fleet::{Fleet, Signals};
use crate::limits::{FAULTS_PER_MINUTE, FLEET_READINGS_PER_S_MAX, PROGRESS_INTERVAL};
use crate::machine::{self, Machine};
use crate::report::{Summary, grouped};
use crate::settings::{Settings, SettingsError};
use anyhow::Context;
use clap::Args;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_agent::detect;
use tributary_settings::say;
use tributary_sim::sim::RunSummary;
use tributary_sim::verify::{self, Report};

/// Arguments of `tributary demo`.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// How long the fleet publishes, as `30s` or `2m`; until Ctrl-C when left out
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How many sensors
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub sensors: u32,
    /// Readings a second of each
    #[arg(long, value_name = "HZ", default_value_t = 10.0)]
    pub rate: f64,
    /// What the fleet measures, and with --chaos what dies when: the same seed, the same plan
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// MQTT quality of service of the fleet: 1 (sent again until acknowledged) or 2
    #[arg(long, value_name = "1|2", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=2))]
    pub qos: u8,
    /// Faults a minute in the whole fleet, of sensors as they happen: spikes, level shifts, stuck
    /// sensors, bearing faults, dropouts; 0: none
    #[arg(long, value_name = "N", default_value_t = FAULTS_PER_MINUTE)]
    pub faults: f64,
    /// The first fault comes this long after the fleet begins; 12s, or 120 readings of a sensor if
    /// these take longer, when left out
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub faults_after: Option<Duration>,
    /// Kill agent and aggregator with SIGKILL at random instants, and cut the link between them
    ///
    /// Both are then processes of their own, started again on the same data; the link loses,
    /// doubles, reorders and damages datagrams as well. The ports are not the default
    /// ones, but stay the same. When the fleet has ended nothing more is killed, everything drains,
    /// and the
    /// comparison is the same as without.
    #[arg(long)]
    pub chaos: bool,
    /// Where everything durable lies; the lake is its folder `lake`
    #[arg(long, value_name = "DIR", default_value = "tributary-data")]
    pub data_dir: PathBuf,
    /// Print the result as one JSON object on the last line
    #[arg(long)]
    pub json: bool,
}

impl Default for DemoArguments {
    fn default() -> Self {
        Self {
            duration: None,
            sensors: 1_000,
            rate: 10.0,
            seed: 1,
            qos: 1,
            faults: FAULTS_PER_MINUTE,
            faults_after: None,
            chaos: false,
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

/// What a demo did, up to the comparison.
pub struct Outcome {
    /// What the fleet did.
    pub published: RunSummary,
    /// Whether everything was acknowledged by the aggregator in time.
    pub drained: bool,
    /// Bytes of UDP payload that the agent sent.
    pub uplink_bytes: u64,
    /// What came of the faults.
    pub found: Found,
    /// What went down meanwhile, with `--chaos`.
    pub blows: Option<Blows>,
}

/// Detection of a demo: its sensors are fast, and a minute is too short for windows of a second.
/// Their clock is this machine's, whoever keeps it.
pub fn by_readings() -> detect::Settings {
    detect::Settings {
        fast: detect::FastMode::Readings,
        clock: detect::ClockTrust::Plausible,
        ..detect::Settings::default()
    }
}

async fn demo(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let defaults = Settings::default();
    let port = |what, default: SocketAddr| match arguments.chaos {
        // Somebody else could take the default one while nobody listens there.
        true => machine::free_address(default.ip()).context("no free port"),
        false => free_or_other(what, default),
    };
    let settings = Settings {
        data_dir: arguments.data_dir.clone(),
        mqtt: port("MQTT", defaults.mqtt)?,
        console: port("HTTP", defaults.console)?,
        decode: defaults.decode,
        detect: by_readings(),
        forward: defaults.forward,
        brokers: defaults.brokers,
    };
    let outcome = match arguments.chaos {
        true => chaos::run(&arguments, &settings, begun).await?,
        false => in_one_process(&arguments, &settings, begun).await?,
    };
    let elapsed = begun.elapsed().as_secs_f64();

    say!("comparing the lake with what was published …");
    let (lake, truth) = (machine::lake_dir(&settings), truth_file(&settings));
    let comparing = tokio::task::spawn_blocking(move || verify::compare(&lake, &truth));
    let report = comparing.await?.context("the lake can't be compared")?;
    let (found, uplink_bytes) = (outcome.found, outcome.uplink_bytes);
    let mut summary = Summary::new(&report, found, uplink_bytes, elapsed);
    summary.blows = outcome.blows;
    show(&summary, &report, &outcome.published, arguments.json);
    if !outcome.drained {
        say!("the agent was not drained in time");
    }
    let good = outcome.drained && report.is_clean() && summary.lost == 0 && summary.duplicates == 0;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The fleet's own ledger.
pub fn truth_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("demo-truth.bin")
}

/// The address itself, or a free port beside it when somebody else has it.
fn free_or_other(what: &str, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    if TcpListener::bind(address).is_ok() {
        return Ok(address);
    }
    let free = machine::free_address(address.ip());
    let free = free.with_context(|| format!("no free port for {what}"))?;
    say!(
        "port {} is in use: {what} is on {free} instead",
        address.port()
    );
    Ok(free)
}

/// What runs, and where to look.
pub fn introduce(arguments: &DemoArguments, settings: &Settings) {
    let (sensors, rate, qos) = (arguments.sensors, arguments.rate, arguments.qos);
    let seed = arguments.seed;
    say!("{sensors} sensors at {rate} Hz, QoS {qos}, seed {seed}");
    say!("MQTT     {}", settings.mqtt);
    say!("status   http://{}/api/v1/status", settings.console);
    say!("lake     {}", machine::lake_dir(settings).display());
    if arguments.duration.is_none() {
        say!("Ctrl-C ends it, and compares");
    }
}

/// That the end has begun.
pub fn say_draining() {
    say!("draining …");
}

#[allow(clippy::print_stdout, reason = "what a program says to its user")]
fn show(summary: &Summary, report: &Report, published: &RunSummary, json: bool) {
    if !report.is_clean() {
        say!(
            "{}",
            serde_json::to_string_pretty(report).unwrap_or_default()
        );
    }
    if published.unacknowledged + published.unsent > 0 {
        let (unacknowledged, unsent) = (published.unacknowledged, published.unsent);
        say!("the fleet ended with {unacknowledged} unacknowledged and {unsent} unsent");
    }
    match json {
        true => println!("{}", serde_json::to_string(summary).unwrap_or_default()),
        false => println!("{summary}"),
    }
}

/// Publishes until the fleet ends, which a signal makes it do, through a machine in this process.
async fn in_one_process(
    arguments: &DemoArguments,
    settings: &Settings,
    begun: Instant,
) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new()?;
    let machine = machine::start(settings).await?;
    introduce(arguments, settings);
    let (mqtt, truth) = (machine.agent.mqtt, truth_file(settings));
    let (mut fleet, alerts) = Fleet::start(arguments, mqtt, truth)?;
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    tick.tick().await;
    let published = loop {
        tokio::select! {
            ended = fleet.ended() => break ended?,
            () = signals.next() => fleet.stop(),
            _ = tick.tick() => say(&fleet, &machine, begun),
        }
    };
    let uplink = machine.agent.uplink.clone();
    say_draining();
    alerts.settle().await;
    let drained = machine.drain().await?;
    let uplink_bytes = uplink.borrow().udp_bytes_sent;
    Ok(Outcome {
        published,
        drained,
        uplink_bytes,
        found: alerts.end().await?,
        blows: None,
    })
}

fn say(fleet: &Fleet, machine: &Machine, begun: Instant) {
    let uplink = machine.agent.uplink.borrow();
    let journal = machine.aggregator.keeper();
    let per_reading = match journal.rows() {
        0 => "-".to_owned(),
        rows => format!("{:.2}", uplink.udp_bytes_sent as f64 / rows as f64),
    };
    say!(
        "{:>4.0}s  published {}  acknowledged {}  at the aggregator {}  in the lake {}  \
         backlog {} batches  {per_reading} B/reading{}",
        begun.elapsed().as_secs_f64(),
        grouped(fleet.progress.published()),
        grouped(fleet.progress.acknowledged()),
        grouped(journal.rows()),
        grouped(machine.aggregator.lake().rows()),
        uplink.backlog_batches,
        alerts_so_far(fleet),
    );
}

/// How many alerts came, for a line of progress; nothing when the agent offers none.
pub fn alerts_so_far(fleet: &Fleet) -> String {
    let count = fleet.alerts.alerts();
    count.map_or_else(String::new, |count| format!("  alerts {}", grouped(count)))
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
    fn no_address_is_given_twice() {
        let loopback = std::net::Ipv4Addr::LOCALHOST.into();
        let given: Vec<_> = (0..20).map(|_| machine::free_address(loopback)).collect();
        let ports: std::collections::BTreeSet<u16> =
            given.into_iter().map(|one| one.unwrap().port()).collect();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn a_port_in_use_gives_way() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_ne!(free_or_other("test", address).unwrap(), address);
    }
}
