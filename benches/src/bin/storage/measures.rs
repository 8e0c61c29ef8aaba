//! The measures: each opens its own files in an empty folder, does its work, and says what it took.
//!
//! What is measured is the library code that the agent runs, on real files. No network, no MQTT.

mod agent;
mod recovery;
mod wal;

use crate::counting::CountingDisk;
use crate::meter::Sample;
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::limits::WAL_SEGMENT_BYTES;
use tributary_journal::{Disk, LifeId, Log, LogConfig, LogKind, Open, Opened};
use tributary_protocol::ids::BufferId;

/// Bytes of logs that no measure fills.
const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// One measure.
pub struct Measure {
    /// Its name, as a word.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it reads what [`recovery::prepare`] wrote, instead of an empty folder.
    pub wants_backlog: bool,
    run: fn(&Path) -> Result<Sample>,
}

impl Measure {
    /// Runs it in `dir`.
    pub fn run(&self, dir: &Path) -> Result<Sample> {
        (self.run)(dir)
    }
}

const fn measure(
    name: &'static str,
    about: &'static str,
    run: fn(&Path) -> Result<Sample>,
) -> Measure {
    Measure {
        name,
        about,
        wants_backlog: false,
        run,
    }
}

/// All of them, in the order a reading travels.
pub const MEASURES: &[Measure] = &[
    measure(
        "wal-paced",
        "bare log: 20,000 messages/s, a frame and an fdatasync every 20 ms",
        wal::paced,
    ),
    measure(
        "wal-saturated",
        "bare log: frames of 64 KiB, one behind the other",
        wal::saturated,
    ),
    measure(
        "wal-stage",
        "queue and commit thread of the agent, 32 messages a batch, saturated",
        wal::stage,
    ),
    measure(
        "seal",
        "decoded readings to sealed and verified batches of 4,096; no disk",
        agent::seal,
    ),
    measure(
        "spool",
        "sealed batches of 4,096 appended, an fdatasync each",
        agent::spool_append,
    ),
    measure(
        "agent",
        "WAL every 20 ms of 20,000 messages/s (time is simulated), decode, marks, seal, spool, \
         checkpoints: 2 million messages",
        agent::everything,
    ),
    Measure {
        name: "recovery-open",
        about: "opening a log of 512 MiB of messages, page cache cold",
        wants_backlog: true,
        run: recovery::open,
    },
    Measure {
        name: "recovery-replay",
        about: "reading all of it back, record by record, page cache cold",
        wants_backlog: true,
        run: recovery::replay,
    },
];

pub use recovery::prepare;

/// The life that is written.
fn present() -> BufferId {
    BufferId::new(1, 0x0123_4567_89ab_cdef)
}

fn open_wal(disk: &CountingDisk, dir: &Path, life: BufferId) -> Result<Opened> {
    let config = LogConfig {
        segment_bytes: WAL_SEGMENT_BYTES,
        quota_bytes: QUOTA_BYTES,
        reserve_bytes: 0,
        kind: LogKind::Wal,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Ok(Log::open(disk, dir, config, Open::NewLife(LifeId(life.0)))?)
}
