//! The parent's side of a child: started, killed, told to drain, listened to. What the child logs
//! goes to a file of its own.

use crate::child::{ChildArguments, DRAIN, NOT_DRAINED, Report, Role};
use crate::limits::{CHILD_END_MAX, LOG_LINES_SHOWN};
use anyhow::{Context, bail};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// SIGKILL, as an exit status names it.
const KILLED: i32 = 9;

/// What a child says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Report(Report),
    /// Its output is closed: it is dead, or about to be.
    Ended,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    role: Role,
    child: Option<Child>,
    said: watch::Receiver<Said>,
    begun: Instant,
    log: PathBuf,
}

/// Where a child's log is.
pub fn log_file(data_dir: &Path, role: Role) -> PathBuf {
    data_dir.join(format!("demo-{role}.log"))
}

impl Process {
    /// Starts this program anew, as a child.
    pub fn start(arguments: &ChildArguments) -> anyhow::Result<Self> {
        let ChildArguments {
            role,
            data_dir,
            mqtt,
            console,
            uplink,
        } = arguments;
        let log = log_file(data_dir, *role);
        let mut child = Command::new(std::env::current_exe().context("where this program is")?)
            .args(["child", &role.to_string()])
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--mqtt", &mqtt.to_string()])
            .args(["--console", &console.to_string()])
            .args(["--uplink", &uplink.to_string()])
            // Ctrl-C is for the parent alone.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(OpenOptions::new().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("starting the {role}"))?;
        let (told, said) = watch::channel(Said::Nothing);
        let output = child.stdout.take().context("its output is piped")?;
        let listen = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(report) = serde_json::from_str(&line) {
                    told.send_replace(Said::Report(report));
                }
            }
            told.send_replace(Said::Ended);
        };
        let process = Self {
            role: *role,
            child: Some(child),
            said,
            begun: Instant::now(),
            log,
        };
        // It ends when the child does, and holds nothing.
        std::thread::Builder::new()
            .name("child".into())
            .spawn(listen)?;
        Ok(process)
    }

    /// Which of the two it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How long it lives.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What it said last.
    pub fn report(&self) -> Option<Report> {
        match *self.said.borrow() {
            Said::Report(report) => Some(report),
            Said::Nothing | Said::Ended => None,
        }
    }

    /// Waits until it is up, or has ended.
    pub async fn up(&mut self) -> anyhow::Result<()> {
        let said = *self
            .said
            .wait_for(|said| *said != Said::Nothing)
            .await
            .context("its listener lives as long as it")?;
        match said {
            Said::Ended => Err(self.ended_by_itself().await),
            _ => Ok(()),
        }
    }

    /// Waits until it has ended, which it should not. Cancel safe.
    pub async fn ended(&mut self) {
        // An error says that the listener is gone, which it is after its last word.
        let _ = self.said.wait_for(|said| *said == Said::Ended).await;
    }

    /// Waits for what has ended, or is about to.
    async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("waited for once")?;
        let waiting = tokio::task::spawn_blocking(move || child.wait());
        Ok(waiting.await??)
    }

    /// That it ended though nobody killed it, and its last words.
    pub async fn ended_by_itself(&mut self) -> anyhow::Error {
        let how = match self.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let (role, log) = (self.role, self.log.display());
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let (_, last) = lines.split_at(lines.len().saturating_sub(LOG_LINES_SHOWN));
        let last = last.join("\n");
        anyhow::anyhow!("the {role} ended by itself ({how}); the end of {log}:\n{last}")
    }

    /// SIGKILL, and the wait for its end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill()?;
        }
        let status = self.wait().await?;
        if status.signal() == Some(KILLED) {
            return Ok(());
        }
        let (role, log) = (self.role, self.log.display());
        bail!("the {role} ended by itself ({status}) before it was killed; see {log}")
    }

    /// Lets it end in order; whether it says that nothing is left.
    pub async fn drain(mut self) -> anyhow::Result<bool> {
        let (role, log) = (self.role, self.log.clone());
        let child = self.child.as_mut().context("it runs")?;
        let mut input = child.stdin.take().context("its input is piped")?;
        writeln!(input, "{DRAIN}").with_context(|| format!("the {role} does not listen"))?;
        // Its input stays open: closed, it would mean that nobody waits for it.
        if tokio::time::timeout(CHILD_END_MAX, self.ended())
            .await
            .is_err()
        {
            bail!("the {role} does not end; see {}", log.display());
        }
        let status = self.wait().await?;
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(0) => Ok(true),
            Some(NOT_DRAINED) => Ok(false),
            _ => bail!("the {role} did not drain ({status}); see {}", log.display()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
