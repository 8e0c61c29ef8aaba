//! What the tests of sinks need, from packages: installed, started on free ports of the loopback
//! below a folder of its own, and ended again, exactly those.
//!
//! Each service has a folder with a script `start`, a file `pid` and a log; so a test can kill one
//! and start it again. Where they are stands in `target/services/env`, as a shell reads it.

mod kafka;
mod postgres;
mod redis;

use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a service may take to answer before it is said that it does not.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Installs and starts them; prints where they are
    Up {
        /// Which; all of them if none is named
        names: Vec<Service>,
    },
    /// Ends what `up` started, and removes its folder
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Service {
    /// PostgreSQL, from Debian
    Postgres,
    /// Redis, from Debian
    Redis,
    /// Apache Kafka, one node in KRaft mode, from Maven's jars
    Kafka,
}

const ALL: [Service; 3] = [Service::Postgres, Service::Redis, Service::Kafka];

/// A service that runs.
struct Started {
    name: &'static str,
    /// What tests are told.
    env: Vec<(&'static str, String)>,
}

/// Does it.
///
/// # Errors
/// What could not be installed or started, with the end of its log.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let note = root.join("target/services");
    match &arguments.what {
        What::Down => down(&note),
        What::Up { names } => {
            let names = if names.is_empty() { &ALL[..] } else { names };
            up(root, &note, names)
        }
    }
}

fn up(root: &Path, note: &Path, names: &[Service]) -> Result<()> {
    ensure!(
        !note.exists(),
        "{} is there: services run, or were left; `cargo xtask services down` ends them",
        note.display()
    );
    fs::create_dir_all(note).with_context(|| format!("making {}", note.display()))?;
    // Never in memory: what the tests kill has to find its files again.
    let dir = PathBuf::from(format!(
        "/var/tmp/tributary-services-{}",
        std::process::id()
    ));
    fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(note.join("dir"), dir.display().to_string())?;
    let mut env = String::new();
    for service in names {
        let started = match service {
            Service::Postgres => postgres::start(&dir),
            Service::Redis => redis::start(&dir),
            Service::Kafka => kafka::start(root, &dir),
        };
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                down(note)?;
                return Err(error.context(format!("{service:?} does not start; nothing runs")));
            }
        };
        let _ = writeln!(
            env,
            "TRIBUTARY_TEST_{}='{}'",
            started.name,
            dir_of(&dir, *service)
        );
        for (key, value) in started.env {
            let _ = writeln!(env, "TRIBUTARY_TEST_{}_{key}='{value}'", started.name);
        }
    }
    fs::write(note.join("env"), &env)?;
    print!("{env}");
    println!(
        "# in {}; ended by `cargo xtask services down`",
        note.join("env").display()
    );
    Ok(())
}

fn dir_of(dir: &Path, service: Service) -> String {
    let name = match service {
        Service::Postgres => "postgres",
        Service::Redis => "redis",
        Service::Kafka => "kafka",
    };
    dir.join(name).display().to_string()
}

fn down(note: &Path) -> Result<()> {
    let Ok(dir) = fs::read_to_string(note.join("dir")) else {
        println!("nothing runs that `cargo xtask services up` started");
        return Ok(());
    };
    let dir = PathBuf::from(dir);
    let folders = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    for folder in folders {
        let folder = folder?.path();
        if let Some(pid) = pid_of(&folder) {
            end(pid, &folder)?;
        }
    }
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    fs::remove_dir_all(note).with_context(|| format!("removing {}", note.display()))
}

/// The process of a service, if it runs and is still that: numbers are used again.
fn pid_of(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    cwd.starts_with(folder).then_some(pid)
}

fn end(pid: u32, folder: &Path) -> Result<()> {
    let pid_text = pid.to_string();
    for signal in ["-TERM", "-KILL"] {
        let status = Command::new("kill").args([signal, &pid_text]).status()?;
        let until = Instant::now() + Duration::from_secs(20);
        while pid_of(folder).is_some() {
            if !status.success() || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(50)); // polls another program's end
        }
        if pid_of(folder).is_none() {
            return Ok(());
        }
    }
    bail!("process {pid} of {} does not end", folder.display())
}

/// A port of the loopback that is free now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Installs Debian's packages unless the file is there.
fn apt(file: &Path, packages: &[&str]) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let run = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .context("running apt-get (Debian, Ubuntu); elsewhere install them by hand")?;
        ensure!(
            status.success(),
            "apt-get {}: {status}",
            arguments.join(" ")
        );
        Ok(())
    };
    run(&["update", "-q"])?;
    let mut arguments = vec!["install", "-q", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    run(&arguments)
}

/// Writes the script that starts a service, and runs it.
fn start_by(folder: &Path, script: &str) -> Result<()> {
    let file = folder.join("start");
    fs::write(
        &file,
        format!(
            "#!/usr/bin/env bash\nset -eu\ncd {}\n{script}",
            folder.display()
        ),
    )?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let status = Command::new(&file).stdin(Stdio::null()).status()?;
    ensure!(
        status.success(),
        "{}: {status}\n{}",
        file.display(),
        tail(&folder.join("log"))
    );
    Ok(())
}

/// Waits until the port answers.
fn answers(port: u16, folder: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let log = || tail(&folder.join("log"));
        ensure!(
            Instant::now() < until,
            "it does not listen on {port}\n{}",
            log()
        );
        std::thread::sleep(Duration::from_millis(100)); // polls another program's port
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(20)..);
    last.unwrap_or_default().join("\n")
}

fn folder(dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = dir.join(name);
    fs::create_dir(&folder)?;
    Ok(folder)
}
