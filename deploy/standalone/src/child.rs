//! The demo's agent or aggregator as a process of its own, which may be killed at any instant.
//!
//! It obeys its standard input: the line `drain` makes it end in order, and the end of the input
//! makes it end at once, since whoever started it is gone then. It says how it stands on its
//! standard output, a line of JSON each time. Signals from a terminal do not reach it.

use crate::demo;
use crate::limits::REPORT_INTERVAL;
use crate::machine;
use crate::settings::Settings;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tributary_agent::decode::Rules;
use tributary_uplink::authority;

/// The line that makes a child end in order.
pub const DRAIN: &str = "drain";

/// The exit code of an agent that could not send everything in time.
pub const NOT_DRAINED: u8 = 3;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The agent.
    Agent,
    /// The aggregator.
    Aggregator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Aggregator => "aggregator",
        })
    }
}

/// Arguments of `tributary child`.
#[derive(Args, Clone, Debug)]
pub struct ChildArguments {
    /// Which of the two it is
    pub role: Role,
    /// Where everything durable lies
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where MQTT clients connect
    #[arg(long, value_name = "ADDR")]
    pub mqtt: SocketAddr,
    /// Where the aggregator answers HTTP
    #[arg(long, value_name = "ADDR")]
    pub console: SocketAddr,
    /// Where the agent sends to, or the aggregator listens
    #[arg(long, value_name = "ADDR")]
    pub uplink: SocketAddr,
}

/// How a child stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Batches that wait: in the agent's spool to be acknowledged, in the aggregator's journal to
    /// be written into the lake.
    pub waiting: u64,
}

/// Runs until it is told to drain, or ends with its parent.
pub fn run(arguments: ChildArguments) -> anyhow::Result<ExitCode> {
    let drain = CancellationToken::new();
    obey(drain.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let settings = Settings {
        data_dir: arguments.data_dir,
        mqtt: arguments.mqtt,
        console: arguments.console,
        decode: Rules::builtin(),
        detect: demo::by_readings(),
        forward: std::sync::Arc::default(),
        brokers: Vec::new(),
    };
    match arguments.role {
        Role::Agent => runtime.block_on(agent(settings, arguments.uplink, drain)),
        Role::Aggregator => runtime.block_on(aggregator(settings, arguments.uplink, drain)),
    }
}

/// Listens to the parent.
#[allow(
    clippy::disallowed_methods,
    reason = "the parent died without a word: so does the child, and what is durable is kept"
)]
fn obey(drain: CancellationToken) -> io::Result<()> {
    let listen = move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if line == DRAIN {
                drain.cancel();
            }
        }
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("parent".into())
        .spawn(listen)?;
    Ok(())
}

/// Tells the parent.
fn say(waiting: u64) {
    let line = serde_json::to_string(&Report { waiting }).unwrap_or_default();
    // A parent that is gone is noticed by its other end.
    let _ = writeln!(io::stdout(), "{line}");
}

async fn agent(
    settings: Settings,
    uplink: SocketAddr,
    drain: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let files = authority::open_or_create(&settings.data_dir.join("pki"))?;
    let agent = machine::start_agent(&settings, &files, uplink, drain).await?;
    let status = agent.uplink.clone();
    let mut joined = pin!(agent.join());
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    let summary = loop {
        tokio::select! {
            summary = &mut joined => break summary?,
            _ = tick.tick() => say(status.borrow().backlog_batches),
        }
    };
    Ok(match summary.drained {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_DRAINED),
    })
}

async fn aggregator(
    settings: Settings,
    uplink: SocketAddr,
    drain: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let files = authority::open_or_create(&settings.data_dir.join("pki"))?;
    let running = machine::start_aggregator(&settings, &files, uplink).await?;
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            _ = tick.tick() => {
                say(running.keeper().end().saturating_sub(running.lake().position()));
            }
        }
    }
    running.shut_down().await?;
    Ok(ExitCode::SUCCESS)
}
