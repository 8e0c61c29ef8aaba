//! `tributary run`: the one-machine deployment.

use crate::machine;
use crate::settings::{Settings, SettingsError, parse_address};
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
    /// Settings, TOML: `data_dir`, `mqtt`, `console` under [machine]. Arguments go before them.
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
    fn settings(&self) -> Result<Settings, SettingsError> {
        let file = Settings::load(self.config.as_deref())?;
        Ok(Settings {
            data_dir: self.data_dir.clone().unwrap_or(file.data_dir),
            mqtt: self.mqtt.unwrap_or(file.mqtt),
            console: self.console.unwrap_or(file.console),
            decode: file.decode,
            detect: file.detect,
            forward: file.forward,
            brokers: file.brokers,
        })
    }
}

/// Runs until SIGTERM or Ctrl-C; SIGHUP has it read `[detect]` once more.
pub fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let machine = machine::start(&settings).await?;
        say!("MQTT     {}", machine.agent.mqtt);
        say!(
            "status   http://{}/api/v1/status",
            machine.aggregator.http_addr()
        );
        say!("lake     {}", machine::lake_dir(&settings).display());
        let mut detection = Detection::new(machine.agent.rejudge.clone(), settings.detect.clone());
        let judge_again = async {
            while hang_up.recv().await.is_some() {
                let read = arguments.settings().map(|settings| settings.detect);
                detection.read_again(read).await;
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
