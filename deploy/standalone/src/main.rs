//! `tributary`: the whole pipeline on one machine. Without a command it runs the demo: a simulated
//! fleet, the agent, the aggregator, and at the end the comparison of the lake with what was
//! published.
#![forbid(unsafe_code)]

mod alerts;
mod chaos;
mod child;
mod demo;
mod fleet;
mod limits;
mod machine;
mod report;
mod run;
mod settings;
mod status;

use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;
use tributary_settings::say;

const EXAMPLES: &str = "\
Try it: a thousand simulated sensors for half a minute, then the proof
  tributary demo --for 30s

The same while agent and aggregator are killed and the link is cut, again and again
  tributary demo --for 60s --rate 5 --chaos

Take readings of your own: publish MQTT to the port it names, query ./tributary-data/lake
  tributary run
  mosquitto_pub -p 1883 -q 1 -t plant/pump-7/temperature -m 21.5

Exit codes: 0 all is well, 1 something is missing or wrong, 2 the command or a setting is wrong";

/// Sensor telemetry from MQTT to a queryable lake, exactly once, on one machine.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a simulated fleet through the whole pipeline, then prove that nothing was lost (default)
    ///
    /// Ends after --for or on Ctrl-C: it then drains, compares the fleet's own ledger with the
    /// lake, reading by reading and bit by bit, and prints the result. Exit code 0 only if nothing
    /// is lost and nothing doubled. Ports that are in use give way to free ones.
    Demo(demo::DemoArguments),
    /// Run the pipeline without the fleet, until SIGTERM or Ctrl-C
    Run(run::RunArguments),
    /// Say everything that is wrong with the settings of `run`, and what of them is hardly meant
    Check(run::RunArguments),
    /// Say how a running `run` is: both its agent and its aggregator
    Status(status::StatusArguments),
    /// A part of `demo --chaos`, which starts it
    #[command(hide = true)]
    Child(child::ChildArguments),
}

fn log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people.
        .with_ansi(std::io::stderr().is_terminal())
        // Whoever read the log may have gone: that is no reason to end.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What a child logs goes to a file, which is looked into when something went wrong.
    log(match arguments.command {
        Some(Command::Child(_)) => "info",
        // Whoever named a broker wants to know whether it is there, and whoever sent SIGHUP what
        // came of it.
        Some(Command::Run(_)) => {
            "warn,tributary_agent::source::broker=info,tributary_agent::judge::rejudge=info"
        }
        _ => "warn",
    });
    tributary_agent::log_panics_and_abort();
    let ended = match arguments.command {
        None => demo::run(demo::DemoArguments::default()),
        Some(Command::Demo(arguments)) => demo::run(arguments),
        Some(Command::Run(arguments)) => run::run(arguments),
        Some(Command::Check(arguments)) => run::check(&arguments),
        Some(Command::Status(arguments)) => status::run(&arguments),
        Some(Command::Child(arguments)) => child::run(arguments),
    };
    ended.unwrap_or_else(|error| {
        say!("tributary: {error:#}");
        match error.downcast_ref::<settings::SettingsError>() {
            Some(_) => ExitCode::from(2),
            None => ExitCode::FAILURE,
        }
    })
}
