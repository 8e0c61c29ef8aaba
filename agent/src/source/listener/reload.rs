//! Users and certificates that change while clients are connected: read again when their files
//! change, or when somebody says so. What cannot be read leaves everything as it was.

use super::super::access::Identity;
use super::ListenerConfig;
use super::Shared;
use crate::limits::RELOAD_INTERVAL;
use metrics::{counter, gauge};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Has users and certificates read again.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Reads them soon, whether their files look changed or not.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// What tells one state of a file from another; `None` where there is none.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Files, and how they looked last.
#[derive(Debug)]
struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Stamp>,
}

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let seen = Self::look(&files);
        Self { files, seen }
    }

    fn look(files: &[PathBuf]) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len(), file.ino()))
        };
        files.iter().map(stamp).collect()
    }

    /// Whether one has changed since it was last asked.
    fn changed(&mut self) -> bool {
        let now = Self::look(&self.files);
        std::mem::replace(&mut self.seen, now) != self.seen
    }
}

/// Everything that may change. Made before the files are read: no change is missed.
#[derive(Debug)]
pub(super) struct Watch {
    users: Watched,
    tls: Watched,
    reload: Reload,
}

impl Watch {
    pub(super) fn new(config: &ListenerConfig) -> Self {
        let tls = config.tls.as_ref().map(|tls| tls.files());
        let tls = tls.into_iter().flatten().map(Into::into).collect();
        Self {
            users: Watched::new(config.users.iter().cloned().collect()),
            tls: Watched::new(tls),
            reload: Reload::default(),
        }
    }

    pub(super) fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Watches until `stop`.
    pub(super) async fn run(mut self, shared: Arc<Shared>, stop: CancellationToken) {
        say(&shared);
        if self.users.files.is_empty() && self.tls.files.is_empty() {
            return;
        }
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.reload.0.notified() => true,
                () = tokio::time::sleep(RELOAD_INTERVAL) => false,
            };
            let (users, tls) = (self.users.changed(), self.tls.changed());
            let (users, tls) = (asked || users, asked || tls);
            if users || tls {
                let owned = Arc::clone(&shared);
                let read = move || read_again(&owned, users, tls);
                // It does not panic; and if it did, the process would be over.
                let results = tokio::task::spawn_blocking(read).await.unwrap_or_default();
                results.into_iter().for_each(tell);
                shared.wills.tell_again();
                put_out(&shared);
                say(&shared);
            }
        }
    }
}

/// What was read, and what was wrong with it.
type Outcome = (&'static str, Result<(), String>);

fn read_again(shared: &Shared, users: bool, tls: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if users && shared.access.file().is_some() {
        let read = shared.access.reload();
        outcomes.push(("users", read.map_err(|error| error.to_string())));
    }
    if tls && let Some(tls) = &shared.tls {
        let read = tls.reload();
        outcomes.push(("certificates", read.map_err(|error| error.to_string())));
    }
    outcomes
}

fn tell((what, read): Outcome) {
    let word = if read.is_ok() { "ok" } else { "failed" };
    counter!("tributary_agent_mqtt_reloads_total", "what" => what, "result" => word).increment(1);
    match read {
        Ok(()) => tracing::info!("MQTT: {what} read again"),
        Err(error) => tracing::error!(%error, "MQTT: {what} stay as they were"),
    }
}

/// Whoever may still do the same stays; the others come again, or do not.
fn put_out(shared: &Shared) {
    let gone = shared.registry.revoke(|identity| shared.may_stay(identity));
    if gone > 0 {
        tracing::info!(
            connections = gone,
            "MQTT: ended, as their users have changed"
        );
    }
}

impl Shared {
    /// Whether a client would be found to be the same now, and may do the same.
    pub(super) fn may_stay(&self, identity: &Identity) -> bool {
        self.access.is_still(identity) && self.is_trusted(identity)
    }

    /// Whether the client's certificate, if it has one, was held against what is there now.
    pub(super) fn is_trusted(&self, identity: &Identity) -> bool {
        let trust = self.tls.as_ref().map(|tls| tls.now().trust);
        identity.trust.is_none() || identity.trust == trust
    }
}

fn say(shared: &Shared) {
    if shared.access.file().is_some() {
        gauge!("tributary_agent_mqtt_users").set(shared.access.users() as f64);
    }
    if let Some(tls) = &shared.tls {
        let not_after = tls.now().not_after as f64;
        gauge!("tributary_agent_mqtt_certificate_expiry_timestamp_seconds").set(not_after);
    }
}
