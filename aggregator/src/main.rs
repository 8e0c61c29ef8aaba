//! The program `tributary-aggregator`: reads its configuration, runs until it is told to stop.
//! Everything it does is in the library.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::Config;
use tributary_aggregator::audit::Verdict;
use tributary_aggregator::commands::audit::{self, AuditArguments};
use tributary_aggregator::commands::quarantine::{self, QuarantineArguments};
use tributary_aggregator::commands::restore::{self, RestoreArguments};
use tributary_aggregator::ingest::endpoint::tls_config;
use tributary_settings::say;

/// Takes sealed batches from Tributary agents over QUIC, keeps each exactly once, and writes
/// Parquet.
///
/// Exit codes: 0 ended well, 1 something failed, 2 usage or configuration.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration, TOML. Without it, defaults and TRIBUTARY_AGGREGATOR__SECTION__KEY.
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
    /// Run until SIGTERM or Ctrl-C; then stop accepting, write the lake, and end.
    Run,
    /// Say everything that is wrong with the configuration, its certificates included.
    Check,
    Audit(AuditArguments),
    Quarantine(QuarantineArguments),
    Restore(RestoreArguments),
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

/// A broken invariant ends the process: the truth is on disk, and the supervisor starts it again.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

#[allow(clippy::print_stdout, reason = "what a program says to its user")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(arguments.log_format);
    // These read what may be damaged, and a reader's panic is an answer there.
    if let Command::Audit(_) | Command::Quarantine(_) | Command::Restore(_) = &arguments.command {
        return look(&arguments);
    }
    abort_on_panic();
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            say!("{error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = tls_config(&config.tls) {
        say!("{error}; name the right files under [uplink]");
        return ExitCode::from(2);
    }
    match arguments.command {
        Command::Check => {
            println!("the configuration is good");
            ExitCode::SUCCESS
        }
        Command::Audit(_) | Command::Quarantine(_) | Command::Restore(_) => ExitCode::SUCCESS,
        Command::Run => match run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Looks at what lies there: 0 all well, 1 not, 2 usage, 3 nobody can tell.
fn look(arguments: &Arguments) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let config = arguments.config.as_deref();
    let done = match &arguments.command {
        Command::Audit(audit) => audit::run(audit, config, &mut out),
        Command::Quarantine(quarantine) => {
            let done = quarantine::run(quarantine, config, &mut out);
            done.map(|well| {
                if well {
                    Verdict::Agrees
                } else {
                    Verdict::Disagrees
                }
            })
        }
        Command::Restore(restore) => {
            restore::run(restore, config, &mut out).map(|()| Verdict::Agrees)
        }
        Command::Run | Command::Check => Ok(Verdict::Agrees),
    };
    let flushed = std::io::Write::flush(&mut out);
    match done.and_then(|verdict| Ok(flushed.map(|()| verdict)?)) {
        Ok(Verdict::Agrees) => ExitCode::SUCCESS,
        Ok(Verdict::Disagrees) => ExitCode::FAILURE,
        Ok(Verdict::Unsettled) => ExitCode::from(3),
        Err(error) => {
            say!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = CancellationToken::new();
        let running = tributary_aggregator::start(config, stop.clone()).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: nothing more is accepted, the lake is written");
        stop.cancel();
        running.stopped().await?;
        Ok(())
    })
}
