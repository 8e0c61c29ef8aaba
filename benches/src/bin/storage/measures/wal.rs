//! Appending messages: the bare log, and the agent's stage in front of it.

use super::{open_wal, present};
use crate::counting::CountingDisk;
use crate::input::{Fleet, Published, RATE};
use crate::meter::{Meter, Sample};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tributary_agent::decode::UserProperties;
use tributary_agent::wal::{Batch, Durable, Message, Qos, RecordKind, Wal};
use tributary_journal::limits::FRAME_BYTES;
use tributary_journal::{CommitPolicy, Frame};

/// From one group commit to the next.
pub const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Messages between two group commits.
pub const COMMIT_MESSAGES: u64 = RATE / 50;
/// Messages of a paced run: three seconds.
const PACED_MESSAGES: u64 = 3 * RATE;
/// Messages of a saturated run.
const SATURATED_MESSAGES: u64 = 1_000_000;
/// Messages that one read of a connection brings.
const READ_MESSAGES: usize = 32;

/// A message as the listener hands it to the log.
pub fn message<'a>(published: &Published<'a>) -> Message<'a> {
    Message {
        session: published.session,
        qos: Qos::AtLeastOnce,
        dup: false,
        retain: false,
        v5: true,
        will: false,
        broker: false,
        packet_id: (published.seq % 65_535) as u16 + 1,
        received_time: published.received_us,
        topic: published.topic,
        properties: UserProperties::NONE,
        payload: published.payload.as_bytes(),
    }
}

/// Adds a message to a frame; `scratch` holds its bytes meanwhile.
pub fn push(frame: &mut Frame, published: &Published<'_>, scratch: &mut Vec<u8>) -> Result<()> {
    scratch.clear();
    message(published).write(scratch);
    Ok(frame.push(RecordKind::Message.code(), scratch)?)
}

/// Messages made ahead, so that making them is not measured.
struct Made {
    topic: String,
    payload: String,
    like: Published<'static>,
}

fn make(fleet: &mut Fleet, count: usize) -> Vec<Made> {
    let one = |_| {
        let published = fleet.publish();
        let like = Published {
            device: "",
            topic: "",
            payload: "",
            ..published
        };
        let (topic, payload) = (published.topic.to_owned(), published.payload.to_owned());
        Made {
            topic,
            payload,
            like,
        }
    };
    (0..count).map(one).collect()
}

impl Made {
    fn published(&self) -> Published<'_> {
        Published {
            topic: &self.topic,
            payload: &self.payload,
            ..self.like
        }
    }
}

/// 20,000 messages a second, a commit every 20 ms.
pub fn paced(dir: &Path) -> Result<Sample> {
    let disk = CountingDisk::default();
    let mut log = open_wal(&disk, dir, present())?.writer;
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    let (mut frame, mut scratch) = (Frame::new(), Vec::new());
    let begin = Instant::now();
    for tick in 1..=PACED_MESSAGES / COMMIT_MESSAGES {
        let made = make(&mut fleet, COMMIT_MESSAGES as usize);
        made.iter()
            .for_each(|one| meter.count(&one.topic, &one.payload));
        meter.run(|| {
            frame.clear();
            made.iter()
                .try_for_each(|one| push(&mut frame, &one.published(), &mut scratch))
        })?;
        let due = begin + COMMIT_EVERY * tick as u32;
        meter.run(|| {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            log.append(&frame)
        })?;
    }
    meter.elapsed_since(begin);
    meter.finish(&disk)
}

/// Frames of 64 KiB, one behind the other.
pub fn saturated(dir: &Path) -> Result<Sample> {
    let disk = CountingDisk::default();
    let mut log = open_wal(&disk, dir, present())?.writer;
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    let (mut frame, mut scratch) = (Frame::new(), Vec::new());
    let mut left = SATURATED_MESSAGES;
    while left > 0 {
        let made = make(&mut fleet, COMMIT_MESSAGES.min(left) as usize);
        made.iter()
            .for_each(|one| meter.count(&one.topic, &one.payload));
        left -= made.len() as u64;
        meter.run(|| -> Result<()> {
            for one in &made {
                push(&mut frame, &one.published(), &mut scratch)?;
                if frame.len_bytes() >= FRAME_BYTES {
                    log.append(&frame)?;
                    frame.clear();
                }
            }
            Ok(())
        })?;
    }
    if !frame.is_empty() {
        meter.run(|| log.append(&frame))?;
    }
    meter.finish(&disk)
}

/// What a connection is told.
#[derive(Default)]
struct Acknowledged(AtomicU64);

impl Durable for Acknowledged {
    fn durable(&self, upto: u64) {
        self.0.fetch_max(upto, Ordering::Relaxed);
    }
}

/// The agent's queue and commit thread, as fast as they take messages.
pub fn stage(dir: &Path) -> Result<Sample> {
    let disk = CountingDisk::default();
    let log = open_wal(&disk, dir, present())?.writer;
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    // What is in the log is not looked at, so that the same messages can come again and again.
    let made = make(&mut fleet, READ_MESSAGES * 64);
    let acknowledged = Arc::new(Acknowledged::default());
    let mut wal = Wal::start(log, CommitPolicy::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let queue = wal.queue.clone();
    let begin = Instant::now();
    meter.run(|| -> Result<()> {
        let (told, wanted) = (Arc::clone(&acknowledged), SATURATED_MESSAGES);
        let taken = std::thread::spawn(move || while wal.committed.blocking_recv().is_some() {});
        runtime.block_on(async {
            let mut sent = 0;
            for read in made.chunks(READ_MESSAGES).cycle() {
                let mut batch = Batch::new();
                read.iter()
                    .for_each(|one| batch.message(&message(&one.published())));
                sent += read.len() as u64;
                batch.tell(Arc::clone(&told) as Arc<dyn Durable>, sent);
                let room = queue
                    .room(batch.len_bytes())
                    .await
                    .context("the log ended")?;
                queue.push(batch, room);
                if sent >= wanted {
                    break;
                }
            }
            anyhow::Ok(())
        })?;
        queue.close();
        taken
            .join()
            .map_err(|_| anyhow::anyhow!("the taker ended badly"))?;
        wal.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the commit thread ended badly"))
    })?;
    meter.elapsed_since(begin);
    let messages = acknowledged.0.load(Ordering::Relaxed);
    anyhow::ensure!(
        messages >= SATURATED_MESSAGES,
        "only {messages} became durable"
    );
    let counted = made.iter().cycle().take(messages as usize);
    counted.for_each(|one| meter.count(&one.topic, &one.payload));
    meter.finish(&disk)
}
