//! Opening a log that holds a backlog, as after a power cut, and reading it back.
//!
//! The page cache is emptied of the backlog before, as far as the system lets a user do that.

use super::wal::push;
use super::{open_wal, present};
use crate::counting::CountingDisk;
use crate::input::Fleet;
use crate::meter::{Meter, Sample};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise};
use std::path::Path;
use tributary_agent::wal::{Record, Replay, Replayed};
use tributary_journal::Frame;
use tributary_protocol::ids::BufferId;

/// Bytes of the backlog.
const BACKLOG_BYTES: u64 = 512 * 1024 * 1024;
/// Bytes of a frame: what a busy agent takes along.
const FRAME_BYTES: usize = 512 * 1024;

/// Writes the backlog into `dir`.
pub fn prepare(dir: &Path) -> Result<()> {
    let mut log = open_wal(&CountingDisk::default(), dir, present())?.writer;
    let (mut fleet, mut frame, mut scratch) = (Fleet::new(), Frame::new(), Vec::new());
    while log.bytes() < BACKLOG_BYTES {
        frame.clear();
        while frame.len_bytes() < FRAME_BYTES {
            push(&mut frame, &fleet.publish(), &mut scratch)?;
        }
        log.append(&frame)?;
    }
    Ok(())
}

/// Lets the system forget the files' pages.
fn chill(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).context("the backlog")? {
        let file = std::fs::File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// A life later than any in the backlog; it writes nothing.
fn next_life() -> BufferId {
    BufferId::new(u64::from(u32::MAX), 1)
}

/// Opens it.
pub fn open(dir: &Path) -> Result<Sample> {
    chill(dir)?;
    let (disk, mut meter) = (CountingDisk::default(), Meter::default());
    let opened = meter.run(|| open_wal(&disk, dir, next_life()))?;
    let found = &opened.recovery;
    ensure!(
        found.damage.is_empty(),
        "the backlog is damaged: {:?}",
        found.damage
    );
    ensure!(
        found.lives.iter().any(|life| life.first < life.end),
        "there is no backlog"
    );
    meter.finish(&disk)
}

/// Opens it, and reads every message.
pub fn replay(dir: &Path) -> Result<Sample> {
    chill(dir)?;
    let (disk, mut meter) = (CountingDisk::default(), Meter::default());
    let opened = open_wal(&disk, dir, next_life())?;
    let mut replay = Replay::new(opened.reader, None);
    let mut counted = Meter::default();
    meter.run(|| -> Result<()> {
        while let Some(step) = replay.next_step()? {
            let Replayed::Record { kind, bytes, .. } = step else {
                bail!("the backlog has holes")
            };
            match Record::parse(kind, &bytes)? {
                Record::Message(one) => counted.count(one.topic, std::str::from_utf8(one.payload)?),
                other => bail!("the backlog holds {other:?}"),
            }
        }
        Ok(())
    })?;
    meter.count_as(&counted);
    meter.finish(&disk)
}
