//! The program `tributary-agent`: reads its configuration, runs until it is told to stop.
//! Everything it does is in the library.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tributary_agent::commands::alert::{self, AlertArguments};
use tributary_agent::commands::buffer::{self, BufferArguments};
use tributary_agent::commands::deadletter::{self, DeadLetterArguments};
use tributary_agent::commands::detect::{self, DetectArguments, DetectError};
use tributary_agent::commands::status::{self, StatusArguments};
use tributary_agent::commands::user::{self, UserCommand};
use tributary_agent::config::{Config, Loaded};
use tributary_agent::judge::Detection;
use tributary_agent::pipeline::{self, Agent, Settings};
use tributary_agent::{http, log_panics_and_abort};
use tributary_settings::say;

/// Takes sensor telemetry over MQTT, makes it durable before it acknowledges, and forwards it in
/// sealed batches over QUIC.
///
/// Exit codes: 0 ended well, 1 something failed, 2 usage or configuration.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration, TOML. Without it, defaults and TRIBUTARY_AGENT__SECTION__KEY.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// How log lines look; which are shown says RUST_LOG.
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run until SIGTERM or Ctrl-C; then take nothing more, send what is there, and end.
    Run,
    /// Say everything that is wrong with the configuration, and with the files that it names.
    Check,
    Detect(DetectArguments),
    #[command(name = "deadletter")]
    DeadLetter(DeadLetterArguments),
    Alert(AlertArguments),
    Buffer(BufferArguments),
    Status(StatusArguments),
    /// Add, change, remove or list the users of the MQTT listener.
    ///
    /// A running agent notices within seconds, or at once on SIGHUP; connections of users that are
    /// gone, or may do something else now, end.
    #[command(subcommand)]
    User(UserCommand),
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people.
        .with_ansi(std::io::stderr().is_terminal())
        // Whoever read the log may have gone: that is no reason to end.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

#[allow(clippy::print_stdout, reason = "what a program says to its user")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(arguments.log_format);
    log_panics_and_abort();
    if let Command::User(command) = &arguments.command {
        return user::run(command, arguments.config.as_deref());
    }
    if let Command::Detect(detecting) = &arguments.command {
        return detection(detecting, arguments.config.as_deref());
    }
    let loaded = match Config::load_all(arguments.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            say!("{error}");
            return ExitCode::from(2);
        }
    };
    let config = &loaded.config;
    let settings = || Settings::from_config(config);
    let path = arguments.config.as_deref();
    match arguments.command {
        Command::User(_) | Command::Detect(_) => ExitCode::SUCCESS,
        Command::DeadLetter(arguments) => dead_letters(arguments, config),
        Command::Alert(arguments) => {
            let mut out = std::io::stdout().lock();
            ended(alert::run(
                &arguments,
                config,
                &mut out,
                &mut std::io::stderr(),
            ))
        }
        Command::Buffer(arguments) => buffers(&arguments, config),
        Command::Status(arguments) => ended(status::run(
            &arguments,
            config,
            &mut std::io::stdout().lock(),
        )),
        Command::Check => {
            let warnings = loaded.warnings.iter();
            warnings.for_each(|warning| say!("warning: {warning}"));
            check(&settings())
        }
        Command::Run => match run(settings(), &loaded, path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn detection(arguments: &DetectArguments, config: Option<&Path>) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = detect::run(arguments, config, &mut out, &mut std::io::stderr());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("{error}");
            match error {
                DetectError::Config(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn ended(done: Result<(), alert::CommandError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn dead_letters(arguments: DeadLetterArguments, config: &Config) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = deadletter::run(arguments, config, &mut out, &mut std::io::stderr());
    let flushed = std::io::Write::flush(&mut out);
    match done.and_then(|well| Ok(flushed.map(|()| well)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn buffers(arguments: &BufferArguments, config: &Config) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = buffer::run(arguments, config, &mut out, &mut std::io::stderr());
    let flushed = std::io::Write::flush(&mut out);
    match done.and_then(|well| Ok(flushed.map(|()| well)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say!("{error}");
            match error.is_usage() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Says what of the settings can't work: the certificates, too.
#[allow(clippy::print_stdout, reason = "what a program says to its user")]
fn check(settings: &Settings) -> ExitCode {
    let mut wrong = Vec::new();
    match tributary_agent::source::check(&settings.listener) {
        Ok(warnings) => warnings
            .iter()
            .for_each(|warning| say!("warning: {warning}")),
        Err(errors) => wrong = errors,
    }
    for broker in &settings.brokers {
        if let Err(error) = broker.check() {
            wrong.push(format!("source.mqtt \"{}\": {error}", broker.name));
        }
    }
    let uplink = settings.uplink.as_ref();
    let checked = uplink.map(|uplink| tributary_uplink::connection::check(&uplink.identity));
    if let Some(Err(errors)) = checked {
        wrong.extend(errors.iter().map(|error| format!("uplink: {error}")));
    }
    if !wrong.is_empty() {
        wrong.iter().for_each(|error| say!("{error}"));
        return ExitCode::from(2);
    }
    match uplink {
        Some(uplink) => {
            println!("the configuration is good");
            let others = uplink.others.targets.iter().map(|it| it.address.as_str());
            let others: Vec<&str> = others.collect();
            if !others.is_empty() {
                let home = &uplink.target.address;
                println!("home is {home}; while it is away: {}", others.join(", "));
            }
        }
        None => {
            println!("the configuration is good; without [uplink] endpoints nothing is forwarded");
        }
    }
    ExitCode::SUCCESS
}

fn sources(config: &Config, agent: &Agent) -> http::Sources {
    http::Sources {
        name: config.agent.name.clone(),
        brokers: agent.brokers.clone(),
        uplink: agent.uplink.clone(),
        storage: agent.storage.clone(),
        waits: agent.waits.clone(),
        wear: agent.wear.clone(),
        watchers: agent.watchers.clone(),
        latest: agent.latest.clone(),
        metrics: http::recorder(),
    }
}

/// Reads the file once more: says what of it holds only after a restart, and has the rest hold.
async fn read_again(started: &Loaded, path: Option<&Path>, detection: &mut Detection) {
    let read = Config::load_all(path);
    if let Ok(now) = &read {
        warn_of(&now.warnings);
        warn_of(&started.needs_restart(now));
    }
    // While storage takes nothing this waits, and ends with the agent.
    detection
        .read_again(read.map(|now| now.config.detect))
        .await;
}

fn warn_of(lines: &[String]) {
    lines.iter().for_each(|line| tracing::warn!("{line}"));
}

fn run(settings: Settings, loaded: &Loaded, path: Option<&Path>) -> anyhow::Result<()> {
    let config = &loaded.config;
    warn_of(&loaded.warnings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let stop = CancellationToken::new();
        // Before anything is counted.
        http::recorder();
        let socket = http::bind(config.http.address).await?;
        let agent = pipeline::start(settings, stop.clone()).await?;
        if let Some(address) = agent.mqtt_tls {
            tracing::info!(%address, "MQTT with TLS");
        }
        let reload = agent.reload.clone();
        let mut detection = Detection::new(agent.rejudge.clone(), config.detect.clone());
        tracing::info!(mqtt = %agent.mqtt, http = %socket.local_addr()?, "running");
        let sources = sources(config, &agent);
        let http_stop = CancellationToken::new();
        let serving = http::serve(socket, sources, http_stop.clone());
        let ending = async {
            let mut joined = std::pin::pin!(agent.join());
            let early = loop {
                tokio::select! {
                    _ = terminate.recv() => break None,
                    _ = interrupt.recv() => break None,
                    _ = hang_up.recv() => {
                        reload.now();
                        tokio::select! {
                            () = read_again(loaded, path, &mut detection) => {}
                            _ = terminate.recv() => break None,
                            _ = interrupt.recv() => break None,
                            summary = &mut joined => break Some(summary),
                        }
                    }
                    summary = &mut joined => break Some(summary),
                }
            };
            tracing::info!("stopping: nothing more is taken, what is there is sent");
            stop.cancel();
            let summary = match early {
                Some(summary) => summary,
                None => joined.await,
            };
            http_stop.cancel();
            summary
        };
        let (served, summary) = tokio::join!(serving, ending);
        served?;
        let summary = summary?;
        if !summary.drained {
            tracing::warn!(
                "not everything was acknowledged in time; it is sent after the next start"
            );
        }
        Ok(())
    })
}
