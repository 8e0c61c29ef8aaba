//! Has a running agent judge by other settings.

use super::settings_record;
use crate::detect::Settings;
use crate::wal::Queue;
use std::fmt;
use tracing::{error, info};

/// Has a running agent judge by other settings.
#[derive(Clone, Debug)]
pub struct Rejudge {
    queue: Queue,
}

impl Rejudge {
    /// For the agent whose log has this queue.
    pub fn new(queue: Queue) -> Self {
        Self { queue }
    }

    /// Has the log say that readings are judged by these settings behind this record. Waits for
    /// room while storage takes nothing; `false` when the agent ends.
    pub async fn by(&self, settings: &Settings) -> bool {
        let batch = settings_record(settings);
        let room = self.queue.room(batch.len_bytes()).await;
        room.map(|room| self.queue.push(batch, room)).is_some()
    }
}

/// What readings are judged by, which may change while the agent runs: on SIGHUP.
#[derive(Debug)]
pub struct Detection {
    rejudge: Rejudge,
    present: Settings,
}

impl Detection {
    /// Of an agent that was started with these settings.
    pub fn new(rejudge: Rejudge, present: Settings) -> Self {
        Self { rejudge, present }
    }

    /// Judges by what `[detect]` says now. When anything in its file is wrong, what holds goes on.
    pub async fn read_again(&mut self, read: Result<Settings, impl fmt::Display>) {
        let wanted = match read {
            // Whether anything is judged is said at the start.
            Ok(settings) => Settings {
                enabled: self.present.enabled,
                ..settings
            },
            Err(error) => {
                error!("readings are judged as before: {error}");
                return;
            }
        };
        if wanted == self.present {
            info!("nothing in [detect] changed");
        } else if self.rejudge.by(&wanted).await {
            let (rules, windows) = (wanted.rules.len(), wanted.windows.len());
            let preset = wanted.preset.name();
            info!(
                preset,
                rules, windows, "readings are judged by other settings"
            );
            self.present = wanted;
        }
    }
}
