//! A process of ours: started, asked over HTTP, ended gently or not at all gently. What it says
//! goes to a file, whose end is shown when a test fails.

use crate::limits::{HTTP_BYTES_MAX, LOG_LINES_SHOWN, PATIENCE, POLL};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// Looks until `reached` gives something.
///
/// # Panics
/// When patience is over; `state` says how things stand then.
pub fn wait_for<T>(
    what: &str,
    state: impl Fn() -> String,
    mut reached: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = reached() {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "waited in vain for {what}\n{}",
            state()
        );
        // tidy: sleep because another process says nothing by itself: it has to be asked again
        std::thread::sleep(POLL);
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    http: SocketAddr,
}

impl Process {
    /// Starts `program` with `arguments`; its output is added to `log`, its HTTP side is at `http`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(program: &Path, arguments: &[&str], log: &Path, http: SocketAddr) -> Self {
        Self::start_with(program, arguments, log, http, &[])
    }

    /// The same, with more in its environment.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start_with(
        program: &Path,
        arguments: &[&str],
        log: &Path,
        http: SocketAddr,
        environment: &[(&str, &OsStr)],
    ) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self {
            child,
            log: log.to_owned(),
            http,
        }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When the system can't say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether it is alive, as it says itself.
    pub fn is_up(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("ended by itself: {status}\n{}", self.last_words());
        }
        self.answers()
    }

    /// The same, of one that may have ended.
    pub fn answers(&self) -> bool {
        matches!(get(self.http, "/healthz"), Some((200, _)))
    }

    /// Waits until it is alive.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn up(&mut self) {
        let log = self.log.clone();
        wait_for("/healthz", || tail(&log), || self.is_up().then_some(()));
    }

    /// A page of its HTTP side: the status code and the text; nothing when nobody answers.
    pub fn page(&self, path: &str) -> Option<(u16, String)> {
        get(self.http, path)
    }

    /// `/api/v1/status`, when somebody answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let (code, text) = self.page("/api/v1/status")?;
        (code == 200).then(|| serde_json::from_str(&text).unwrap())
    }

    /// A number of the status, 0 where there is none yet.
    pub fn number(&self, pointer: &str) -> u64 {
        let status = self.status();
        let number = status.as_ref().and_then(|status| status.pointer(pointer));
        number.and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// A counter of `/metrics`, summed over its labels that hold `label`.
    pub fn counter(&self, name: &str, label: &str) -> u64 {
        let (_, text) = self.page("/metrics").unwrap_or_default();
        let ours = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or("#");
            rest.starts_with([' ', '{']) && rest.contains(label)
        });
        ours.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// How it stands, in a line, and the end of what it said: for whoever looks why a test failed.
    pub fn state(&self) -> String {
        let uplink = self
            .status()
            .and_then(|status| status.get("uplink").cloned());
        format!("{uplink:?}\n{}", self.last_words())
    }

    /// SIGKILL: it has no time for a last word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL, unless it has ended already; how it did.
    ///
    /// # Panics
    /// When the system can't say.
    pub fn kill_now(&mut self) -> ExitStatus {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Waits for its end, which is to be a kill.
    ///
    /// # Panics
    /// When it ends otherwise, or not at all.
    pub fn was_killed(&mut self) {
        let log = self.log.clone();
        let ended = wait_for("a kill", || tail(&log), || self.child.try_wait().unwrap());
        assert_eq!(ended.code(), None, "it was to be killed: {ended}");
    }

    /// How it ended, which it does by itself.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn ended(mut self) -> ExitStatus {
        let log = self.log.clone();
        wait_for("its end", || tail(&log), || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and how it then ended.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status()
            .unwrap();
        assert!(sent.success(), "kill: {sent}");
        let log = self.log.clone();
        wait_for(
            "its end after SIGTERM",
            || tail(&log),
            || self.child.try_wait().unwrap(),
        )
    }

    /// The end of what it said.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(log) {
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.len().saturating_sub(LOG_LINES_SHOWN);
    format!("{}:\n{}", log.display(), lines[shown..].join("\n"))
}

/// One HTTP request; nothing when it is not answered whole.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.take(HTTP_BYTES_MAX).read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}
