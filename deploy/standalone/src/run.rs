//! `tributary run`: the one-machine deployment.

use crate::machine;
use crate::settings::{Loaded, Settings, SettingsError, parse_address};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tributary_agent::judge::Detection;
use tributary_settings::say;

/// Arguments of `tributary run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Settings, TOML: `data_dir`, `mqtt`, `console` under `[machine]`, and `[[decode]]`,
    /// `[detect]`, `[[forward]]`, `[capture]`, `[[source.mqtt]]` as of the agent. Arguments go
    /// before them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything durable lies; the lake is its folder `lake` [default: ./tributary-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where MQTT clients connect [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    mqtt: Option<SocketAddr>,
    /// Where /healthz, /readyz, /metrics and /api/v1/status are [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    console: Option<SocketAddr>,
}

impl RunArguments {
    fn load(&self) -> Result<Loaded, SettingsError> {
        let mut loaded = Settings::load(self.config.as_deref())?;
        let settings = &mut loaded.settings;
        if let Some(data_dir) = &self.data_dir {
            settings.data_dir.clone_from(data_dir);
        }
        settings.mqtt = self.mqtt.unwrap_or(settings.mqtt);
        settings.console = self.console.unwrap_or(settings.console);
        Ok(loaded)
    }
}

/// Says everything that is wrong with the settings, and with the files that they name.
#[allow(clippy::print_stdout, reason = "what a program says to its user")]
pub fn check(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let loaded = arguments.load()?;
    let warnings = loaded.warnings.iter();
    warnings.for_each(|warning| say!("warning: {warning}"));
    let brokers = loaded.settings.brokers.iter();
    let wrong = brokers.filter_map(|broker| {
        let error = broker.check().err()?;
        Some(format!("source.mqtt \"{}\": {error}", broker.name))
    });
    let wrong: Vec<String> = wrong.collect();
    if !wrong.is_empty() {
        return Err(SettingsError::Argument(wrong.join("\n")).into());
    }
    println!("the configuration is good");
    Ok(ExitCode::SUCCESS)
}

/// Reads the file once more: says what of it holds only after a restart, and has the rest hold.
async fn read_again(started: &Loaded, arguments: &RunArguments, detection: &mut Detection) {
    let read = arguments.load();
    if let Ok(now) = &read {
        let lines = now
            .warnings
            .iter()
            .cloned()
            .chain(started.needs_restart(now));
        lines.for_each(|line| tracing::warn!("{line}"));
    }
    detection
        .read_again(read.map(|now| now.settings.detect))
        .await;
}

/// Runs until SIGTERM or Ctrl-C; SIGHUP has it read `[detect]` once more.
pub fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let loaded = arguments.load()?;
    let settings = &loaded.settings;
    let warnings = loaded.warnings.iter();
    warnings.for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let machine = machine::start(settings).await?;
        say!("MQTT     {}", machine.agent.mqtt);
        say!(
            "status   http://{}/api/v1/status",
            machine.aggregator.http_addr()
        );
        say!("lake     {}", machine::lake_dir(settings).display());
        let mut detection = Detection::new(machine.agent.rejudge.clone(), settings.detect.clone());
        let judge_again = async {
            while hang_up.recv().await.is_some() {
                read_again(&loaded, &arguments, &mut detection).await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = judge_again => {}
        }
        say!("draining …");
        if machine.drain().await? {
            say!("everything that was acknowledged is in the lake");
            Ok(ExitCode::SUCCESS)
        } else {
            say!("not everything went through in time: it is kept, and goes on at the next start");
            Ok(ExitCode::FAILURE)
        }
    })
}
