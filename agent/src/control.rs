//! The control socket: how commands ask the running agent for something. A Unix socket in the data
//! directory, so that the file system says who may: the owner alone.
//!
//! One request a connection, one line of JSON each way, one connection at a time. Decides nothing.

use crate::alert::{AlertId, TOPIC_PREFIX};
use crate::deadletter::put_back::{LetterRange, Outcome, Putter};
use crate::judge::{Found, WatchedSeries, Watchers, Watching, acknowledged_record};
use crate::limits::{CONTROL_BYTES_MAX, CONTROL_PATIENCE, CONTROL_TIMEOUT, PUT_BACK_RANGES_MAX};
use crate::source::Hub;
use crate::wal::{Durable, Queue};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tributary_uplink::Status;

/// What may be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Put these dead letters back.
    PutBack(Vec<LetterRange>),
    /// Tell every alert that stands; with `over` what topics show that is over, too.
    Alerts {
        /// Whether.
        over: bool,
    },
    /// Tell which series are watched.
    Status,
    /// Somebody has seen the alert whose id begins so.
    Acknowledge(String),
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What became of the letters.
    PutBack(Outcome),
    /// Alerts, each as JSON, the gravest first; not all where there are too many for an answer.
    Alerts {
        /// They.
        alerts: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// Which series are watched; not all where there are too many for an answer.
    Status(Watching),
    /// It is durable that the alert was seen.
    Acknowledged {
        /// Which one that is.
        id: String,
        /// Whether that was known before.
        before: bool,
    },
    /// No such alert stands.
    NotStanding,
    /// The ids of so many alerts that stand begin so.
    Several(usize),
    /// Why nothing was done, or not all.
    Refused(String),
}

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// The agent's end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    putter: Putter,
    desk: Desk,
}

/// Where alerts are looked at and acknowledged.
#[derive(Clone, Debug)]
pub struct Desk {
    hub: Hub,
    queue: Queue,
    watchers: Watchers,
    uplink: watch::Receiver<Status>,
}

impl Desk {
    /// For what `hub` shows and `watchers` say, through the log behind `queue`, and how the
    /// uplink stands.
    pub fn new(
        hub: &Hub,
        queue: &Queue,
        watchers: &Watchers,
        uplink: &watch::Receiver<Status>,
    ) -> Self {
        Self {
            hub: hub.clone(),
            queue: queue.clone(),
            watchers: watchers.clone(),
            uplink: uplink.clone(),
        }
    }

    async fn status(&self) -> Answer {
        let mut watching = match self.watchers.ask().await {
            Ok(watching) => watching,
            Err(why) => return Answer::Refused(self.unwatched(why.words())),
        };
        {
            let uplink = self.uplink.borrow();
            watching.fenced_last_hour = uplink.fenced_last_hour;
            watching.in_doubt_batches = uplink.in_doubt_batches;
            if uplink.away {
                watching.away_at.clone_from(&uplink.aggregator);
            }
        }
        let bytes = |series: &WatchedSeries| {
            // Each byte of a name escaped, and the rest.
            6 * (series.device.len() + series.metric.len()) + 128
        };
        let names = watching.configured.iter().map(|it| &it.name);
        let names = names.chain(watching.clocks.iter().map(|clock| &clock.device));
        let texts = watching.number_texts.iter();
        let texts = texts.flat_map(|it| [&it.device, &it.metric, &it.text]);
        let others: usize = names.chain(texts).map(|name| 6 * name.len() + 128).sum();
        let mut room = (CONTROL_BYTES_MAX - 1_024).saturating_sub(others);
        let fits = watching.listed.iter().take_while(|series| {
            let left = room.checked_sub(bytes(series));
            room = left.unwrap_or(room);
            left.is_some()
        });
        let fits = fits.count();
        watching.listed.truncate(fits);
        Answer::Status(watching)
    }

    /// Why nothing is watched; that another machine has this identity, all the same.
    fn unwatched(&self, why: &str) -> String {
        match self.uplink.borrow().fenced_last_hour {
            0 => why.to_owned(),
            times => format!("{}{why}", fenced_line(times)),
        }
    }

    async fn alerts(&self, over: bool) -> Answer {
        let room = CONTROL_BYTES_MAX - 1_024;
        let (mut alerts, mut more) = match self.watchers.stands(room).await {
            Ok(stands) => (stands.alerts, stands.more),
            Err(why) => return Answer::Refused(why.words().to_owned()),
        };
        // In the answer each quotation mark has one more byte.
        let mut bytes: usize = alerts.iter().map(|alert| 2 * alert.len() + 8).sum();
        let shown = match over {
            true => self.hub.present(TOPIC_PREFIX),
            false => Vec::new(),
        };
        for alert in shown {
            let alert = String::from_utf8(alert.into()).unwrap_or_default();
            // Our own JSON: no name in it has such quotation marks.
            if !alert.contains("\"state\":\"cleared\"") {
                continue;
            }
            bytes += 2 * alert.len() + 8;
            match bytes < room {
                true => alerts.push(alert),
                false => more += 1,
            }
        }
        Answer::Alerts { alerts, more }
    }

    async fn acknowledge(&self, begins: &str) -> Answer {
        match self.watchers.find(begins).await {
            Ok(Found::One(id, false)) => self.seen(id).await,
            Ok(Found::One(id, true)) => Answer::Acknowledged {
                id: id.to_string(),
                before: true,
            },
            Ok(Found::None) => Answer::NotStanding,
            Ok(Found::Several(count)) => Answer::Several(count),
            Err(why) => Answer::Refused(why.words().to_owned()),
        }
    }

    async fn seen(&self, id: AlertId) -> Answer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_micros();
        let mut batch = acknowledged_record(i64::try_from(now).unwrap_or(i64::MAX), id);
        let durable = Arc::new(Told::default());
        batch.tell(Arc::clone(&durable) as Arc<dyn Durable>, 1);
        let Some(room) = self.queue.room(batch.len_bytes()).await else {
            return Answer::Refused("the agent stops".to_owned());
        };
        self.queue.push(batch, room);
        tokio::select! {
            () = durable.0.notified() => Answer::Acknowledged {
                id: id.to_string(),
                before: false,
            },
            () = self.queue.ended() => Answer::Refused("the agent stops".to_owned()),
        }
    }
}

/// That another machine has this identity, as a person reads it.
pub fn fenced_line(times: u64) -> String {
    let plural = if times == 1 { "" } else { "s" };
    format!(
        "another machine with this agent's identity ended its session {times} time{plural} in the \
         last hour: see docs/identity.md\n"
    )
}

#[derive(Default)]
struct Told(Notify);

impl Durable for Told {
    fn durable(&self, _upto: u64) {
        self.0.notify_one();
    }
}

impl Control {
    /// Listens in `data_dir`, which nobody else uses. Without it commands find no running agent,
    /// and all else goes on: `None`, and a warning.
    pub fn bind(data_dir: &Path, putter: Putter, desk: Desk) -> Option<Self> {
        let path = path_in(data_dir);
        // One that is there is left from a process that was killed.
        let cleared = match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let bound = cleared.and_then(|()| {
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => Some(Self {
                listener,
                path,
                putter,
                desk,
            }),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "no control socket: no dead letter can be put back");
                None
            }
        }
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let serve = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        if let Err(error) = self.serve(stream).await {
                            tracing::debug!(%error, "a control connection broke");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket takes nobody");
                        tokio::time::sleep(CONTROL_TIMEOUT).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve => {}
        }
        // Best effort: the next start removes it, too.
        let _ = std::fs::remove_file(&self.path);
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = stream.split();
        let mut line = Vec::new();
        let mut reading = tokio::io::BufReader::new(reading.take(CONTROL_BYTES_MAX as u64));
        let read = reading.read_until(b'\n', &mut line);
        match tokio::time::timeout(CONTROL_TIMEOUT, read).await {
            Ok(read) => read?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let answer = match serde_json::from_slice(&line) {
            Ok(Request::PutBack(letters)) => self.put_back(&letters).await,
            Ok(Request::Alerts { over }) => self.desk.alerts(over).await,
            Ok(Request::Status) => self.desk.status().await,
            Ok(Request::Acknowledge(id)) => self.desk.acknowledge(&id).await,
            Err(error) => Answer::Refused(format!("no request that this agent knows: {error}")),
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        let written = writing.write_all(&bytes);
        tokio::time::timeout(CONTROL_TIMEOUT, written)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    async fn put_back(&self, letters: &[LetterRange]) -> Answer {
        if !self.putter.has_room_for(letters.len()) {
            return Answer::Refused(format!(
                "letters in more than {PUT_BACK_RANGES_MAX} places were put back one by one: put \
                 back all, or many that stand side by side"
            ));
        }
        match self.putter.put_back(letters).await {
            Ok(outcome) => Answer::PutBack(outcome),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// Why the running agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs.
    #[error("no agent runs on {}{}", dir.display(), hint(dir))]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
    },
    /// It did not answer.
    #[error("the agent on {} did not answer: {source}", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `tributary run` keeps its agent's data in a directory of its own, in the one that it was given.
fn hint(dir: &Path) -> String {
    let inner = dir.join("agent");
    match inner.is_dir() {
        true => format!("; try --data-dir {}", inner.display()),
        false => String::new(),
    }
}

/// Asks the agent that runs on `data_dir`, and waits for its answer.
///
/// # Errors
/// [`AskError`]; what was asked for may have been done then, and asking again is sound.
pub fn ask(data_dir: &Path, request: &Request) -> Result<Answer, AskError> {
    let dir = data_dir.to_owned();
    let path = path_in(data_dir);
    let connected = std::os::unix::net::UnixStream::connect(path);
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {
            return Err(AskError::NotRunning { dir });
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused) => {
            return Err(AskError::NotRunning { dir });
        }
        Err(source) => return Err(AskError::Io { dir, source }),
    };
    let talk = |stream: &mut std::os::unix::net::UnixStream| {
        stream.set_read_timeout(Some(CONTROL_PATIENCE))?;
        stream.set_write_timeout(Some(CONTROL_TIMEOUT))?;
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        stream.write_all(&bytes)?;
        let mut line = Vec::new();
        BufReader::new(stream)
            .take(CONTROL_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)?;
        serde_json::from_slice(&line).map_err(io::Error::from)
    };
    talk(&mut stream).map_err(|source| AskError::Io { dir, source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_no_agent_runs_the_directory_inside_that_may_be_meant_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = || ask(dir.path(), &Request::Status).unwrap_err().to_string();
        let shown = dir.path().display();
        assert_eq!(said(), format!("no agent runs on {shown}"));
        std::fs::create_dir(dir.path().join("agent")).unwrap();
        let named = format!("no agent runs on {shown}; try --data-dir {shown}/agent");
        assert_eq!(said(), named);
    }
}
