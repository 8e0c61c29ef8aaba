//! `tributary-sim`: a fleet of simulated devices, a CSV as a device, and the check of the lake.
//!
//! Arguments, signals, lines of progress and exit codes; all else is in the library.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tributary_sim::client::{Progress, Protocol};
use tributary_sim::fault::FaultConfig;
use tributary_sim::limits::{DRAIN_S_DEFAULT, RATE_HZ_MAX};
use tributary_sim::replay::Replay;
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary, SimError};
use tributary_sim::truth;
use tributary_sim::verify::{self, Report};

const EXAMPLES: &str = "\
Size a site: publish for a minute, then hold the lake against what was published
  tributary-sim run --mqtt 127.0.0.1:1883 --sensors 1000 --rate 10 --for 60s --truth truth.bin
  tributary-sim verify --lake ./tributary-data/lake --truth truth.bin

Publish a file as a device
  tributary-sim replay --mqtt 127.0.0.1:1883 --input room-7.csv --truth truth.bin

Exit codes: 0 all is well, 1 something is missing or wrong, 2 the command or a setting is wrong";

/// Simulated MQTT devices, and the proof that what they published has arrived.
#[derive(Parser)]
#[command(name = "tributary-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish the readings of a simulated fleet
    ///
    /// Temperatures, pressures, vibration, states and counters, shaped like real ones, to topics
    /// like `plant-1/pump-0007/temperature`, as {"value":21.37,"ts":…,"seq":17,"unit":"°C"}. One
    /// seed gives one fleet. Ends after --for, on Ctrl-C or SIGTERM, and then waits for what is
    /// not acknowledged yet. Exit code 0 only if everything was acknowledged.
    Run(RunArgs),
    /// Publish a CSV file: each column but the first a metric, each row a moment
    ///
    /// The file begins with a header. The first column is the time: RFC 3339, or
    /// `YYYY-MM-DD HH:MM:SS` in UTC. Numbers go out as they are written, true and false as such,
    /// other text as text; empty cells are skipped. Topics are `<device>/<column>`. The whole file
    /// is checked before anything is published.
    Replay(ReplayArgs),
    /// Compare the lake's Parquet files with a truth ledger, reading by reading, bit by bit
    ///
    /// Every (device, metric, sequence, time, type, value bits). Exit code 0 only if nothing is
    /// lost, doubled, changed or foreign and every file can be read; 1 otherwise. Rows of devices
    /// that the ledger does not name are counted as `others`, rows received before the run began
    /// as `earlier`; neither is an error. Needs about 48 bytes of memory for each reading.
    Verify(VerifyArgs),
    /// List the faults that a truth ledger says were injected
    ///
    /// One line each: device, metric, kind, event time of its first and last reading, how many
    /// readings; with tabs between.
    Faults(FaultsArgs),
}

#[derive(Args)]
struct PublishArgs {
    /// MQTT server, as HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: String,
    /// MQTT version: 3 (3.1.1) or 5
    #[arg(long, value_name = "3|5", default_value = "3", value_parser = protocol)]
    protocol: Protocol,
    /// Quality of service: 0, 1 (sent again until it is acknowledged) or 2 (then also released)
    #[arg(long, value_name = "0|1|2", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Write the truth ledger here: what was published, what was acknowledged
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Write each event there at once: for who watches what stands in it when
    #[arg(long, requires = "truth")]
    prompt_truth: bool,
    /// Wait this long at the end for outstanding acknowledgements; 30s when left out
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain: Option<Duration>,
    /// First part of the MQTT client ids; two runs at one time need different ones
    #[arg(long, value_name = "TEXT", default_value = "tributary-sim")]
    client_id: String,
    /// Print the summary as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    publish: PublishArgs,
    /// How many sensors; each is a device with one metric
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    sensors: u32,
    /// Readings a second of each sensor, at most 1000
    #[arg(long, value_name = "HZ", default_value_t = 10.0)]
    rate: f64,
    /// Measure this long: 20s, 5m, 2h; until stopped when left out
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// The same seed gives the same devices and the same courses
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Connections that the sensors share; by their number, at most 256, when left out
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// First level of the topics, without its number
    #[arg(long, value_name = "NAME", default_value = "plant")]
    site: String,
    /// Leave `seq` out, as devices do that count nothing: what is sent again is then told by MQTT
    /// alone, and `verify` tells readings by their times
    #[arg(long)]
    no_seq: bool,
    /// Faults a minute in the whole fleet: spikes, level shifts, stuck sensors, bearing faults,
    /// dropouts; in 3 of 20 sensors, sized so that they show. 0: none
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    faults: f64,
    /// The first fault comes this long after the beginning
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = duration)]
    faults_after: Duration,
}

#[derive(Args)]
struct ReplayArgs {
    #[command(flatten)]
    publish: PublishArgs,
    /// The CSV file
    #[arg(long, value_name = "CSV")]
    input: PathBuf,
    /// The device's name; the file's name without its ending when left out
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Messages a second; as fast as they are acknowledged when left out
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
}

#[derive(Args)]
struct VerifyArgs {
    /// The lake: its folder, or its folder `readings`; several times for what several
    /// aggregators of the same agents hold together
    #[arg(long, value_name = "DIR", required = true)]
    lake: Vec<PathBuf>,
    /// The truth ledger of the run
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// The simulator was killed: compare as far as its truth ledger goes, which has no end then
    #[arg(long)]
    killed: bool,
    /// Print the report as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct FaultsArgs {
    /// The truth ledger of the run
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "3" | "3.1.1" | "4" => Ok(Protocol::V311),
        "5" => Ok(Protocol::V5),
        _ => Err("choose 3 (for 3.1.1) or 5".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with its unit, as in 500ms, 20s, 5m or 2h".to_owned();
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn rate(text: &str) -> Result<f64, String> {
    let most = RATE_HZ_MAX * 1e3;
    let rate = text
        .parse::<f64>()
        .ok()
        .filter(|rate| *rate >= 1e-3 && *rate <= most);
    rate.ok_or_else(|| format!("expected messages a second, 0.001 to {most}"))
}

impl PublishArgs {
    fn publishing(&self) -> Publishing {
        Publishing {
            mqtt: self.mqtt.clone(),
            protocol: self.protocol,
            qos: self.qos,
            client_id: self.client_id.clone(),
            truth: self.truth.clone(),
            prompt_truth: self.prompt_truth,
            numbered: true,
            drain: self.drain.unwrap_or(Duration::from_secs(DRAIN_S_DEFAULT)),
            observer: None,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people.
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    let code = match cli.command {
        Command::Verify(args) => check(&args),
        Command::Faults(args) => list_faults(&args),
        Command::Run(args) => publish(&args.publish, |stop, progress| {
            let config = RunConfig {
                publishing: Publishing {
                    numbered: !args.no_seq,
                    ..args.publish.publishing()
                },
                sensors: args.sensors,
                rate_hz: args.rate,
                duration: args.duration,
                seed: args.seed,
                connections: args.connections,
                site: args.site.clone(),
                started_ms: None,
                faults: FaultConfig {
                    per_minute: args.faults,
                    after: args.faults_after,
                },
            };
            sim::run(config, stop, progress)
        }),
        Command::Replay(args) => publish(&args.publish, |stop, progress| async {
            let opened = Replay::open(&args.input, args.device.as_deref(), args.rate)?;
            sim::replay(args.publish.publishing(), opened, stop, progress).await
        }),
    };
    ExitCode::from(code)
}

fn say(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        say(&format!("stdout: {error}"));
    }
}

fn check(args: &VerifyArgs) -> u8 {
    let report = match verify::compare_all(&args.lake, &args.truth) {
        Ok(report) => report,
        Err(error) => {
            say(&format!("tributary-sim: {error}"));
            return 2;
        }
    };
    let clean = if args.killed {
        report.is_clean_if_killed()
    } else {
        report.is_clean()
    };
    if args.json {
        print(&serde_json::to_string(&report).expect("a report is numbers and text"));
    } else {
        print(&in_words(&report, clean));
    }
    u8::from(!clean)
}

fn list_faults(args: &FaultsArgs) -> u8 {
    let faults = match truth::faults(&args.truth) {
        Ok(faults) => faults,
        Err(error) => {
            say(&format!("tributary-sim: {error}"));
            return 2;
        }
    };
    for fault in &faults {
        print(&match args.json {
            true => serde_json::to_string(fault).expect("a fault is numbers and text"),
            false => fault.to_string(),
        });
    }
    0
}

fn in_words(report: &Report, clean: bool) -> String {
    let mut lines = vec![];
    if let Some(tail) = &report.truth_tail {
        lines.push(format!("truth ledger: {tail}"));
    }
    let counts = [
        ("published", report.published),
        ("acknowledged", report.acknowledged),
        ("refused", report.refused),
        ("delivered", report.delivered),
        ("unacknowledged, delivered", report.unacknowledged_delivered),
        ("lost", report.lost),
        ("duplicates", report.duplicates),
        ("twice, in doubt", report.twice_in_doubt),
        ("changed", report.changed),
        ("foreign", report.foreign),
        ("earlier", report.earlier),
        ("others", report.others),
    ];
    lines.extend(
        counts
            .iter()
            .map(|(name, count)| format!("{name:<26}{count:>14}")),
    );
    lines.push(format!(
        "read {} rows in {} files",
        report.rows, report.files
    ));
    for folder in &report.skipped {
        lines.push(format!("not looked into: {}", folder.display()));
    }
    for bad in &report.unreadable {
        lines.push(format!("unreadable: {}: {}", bad.file.display(), bad.why));
    }
    let examples = &report.examples;
    for (name, some) in [
        ("lost", &examples.lost),
        ("duplicate", &examples.duplicates),
        ("changed", &examples.changed),
        ("foreign", &examples.foreign),
    ] {
        lines.extend(some.iter().map(|words| format!("{name}: {words}")));
    }
    lines.push(if clean { "clean" } else { "NOT CLEAN" }.to_owned());
    lines.join("\n")
}

/// Runs `work` with a line of progress a second, until it ends by itself or by a signal.
fn publish<F>(args: &PublishArgs, work: impl FnOnce(CancellationToken, Arc<Progress>) -> F) -> u8
where
    F: Future<Output = Result<RunSummary, SimError>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!(
                "tributary-sim: the runtime does not start: {error}"
            ));
            return 1;
        }
    };
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let ended = runtime.block_on(async {
        let mut work = std::pin::pin!(work(stop.clone(), progress.clone()));
        let mut watch = std::pin::pin!(watch(stop, progress.clone()));
        tokio::select! {
            ended = &mut work => Some(ended),
            () = &mut watch => None,
        }
    });
    let Some(ended) = ended else {
        say("tributary-sim: ended at once; the truth ledger has no end record");
        return 1;
    };
    match ended {
        Ok(summary) => {
            if args.json {
                print(&serde_json::to_string(&summary).expect("a summary is numbers"));
            } else {
                print(&summary_in_words(&summary));
            }
            u8::from(!summary.is_complete())
        }
        Err(error) => {
            say(&format!("tributary-sim: {error}"));
            match error {
                SimError::Fleet(_) | SimError::Replay(_) | SimError::Setting(_) => 2,
                SimError::Truth(_) | SimError::NeverConnected(_) | SimError::Broken(_) => 1,
            }
        }
    }
}

fn summary_in_words(summary: &RunSummary) -> String {
    let counts = &summary.counts;
    format!(
        "published {} acknowledged {} unacknowledged {} unsent {} refused {} reconnects {} \
         resent {} late ticks {} faults {} in {:.1} s over {} connections",
        counts.published,
        counts.acknowledged,
        summary.unacknowledged,
        summary.unsent,
        counts.refused,
        counts.reconnects,
        counts.resent,
        counts.late_ticks,
        counts.faults,
        summary.elapsed_s,
        summary.connections
    )
}

/// Says once a second how it goes, and cancels `stop` at the first signal; returns at the second.
async fn watch(stop: CancellationToken, progress: Arc<Progress>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    let (mut last, mut seconds) = (0, 0u64);
    let mut signals = Signals::watch();
    loop {
        tokio::select! {
            _ = second.tick() => {}
            () = signals.next() => {
                if stop.is_cancelled() {
                    return;
                }
                say("stopping: waiting for what is not acknowledged yet; once more ends at once");
                stop.cancel();
                continue;
            }
        }
        seconds += 1;
        let counts = progress.counts();
        let rate = counts.published - last;
        last = counts.published;
        let mut line = format!(
            "{seconds:>4} s  published {:>10} (+{rate}/s)  acknowledged {:>10}  connected {}",
            counts.published,
            counts.acknowledged,
            progress.connected()
        );
        if counts.resent + counts.late_ticks > 0 {
            line += &format!(
                "  resent {}  late ticks {}",
                counts.resent, counts.late_ticks
            );
        }
        if progress.connected() == 0
            && let Some(trouble) = progress.trouble()
        {
            line += &format!("  ({trouble}; trying again)");
        }
        say(&line);
    }
}

/// SIGINT and SIGTERM.
struct Signals(Option<[Signal; 2]>);

impl Signals {
    fn watch() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        let [Ok(interrupt), Ok(terminate)] = kinds.map(signal) else {
            say("signals cannot be watched: end the run with --for");
            return Self(None);
        };
        Self(Some([interrupt, terminate]))
    }

    /// Returns at the next signal; cancel safe.
    async fn next(&mut self) {
        match &mut self.0 {
            None => std::future::pending().await,
            Some([interrupt, terminate]) => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for bad in ["20", "s", "-1s", "1d", "1e400s", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
