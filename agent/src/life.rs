//! Which life of the agent's storage this is: a counter that grows at every open, and 64 random
//! bits that tell it from a clone's. The counter is durable before the life is used.
//!
//! The random bits are drawn anew for each life and stand in no file: two machines with copies of
//! one disk begin the same life under two names.

use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk};
use tributary_planted::planted;
use tributary_protocol::ids::BufferId;

/// Begins the next life of the storage in `dir`: greater than the counter, than every life that
/// names a file of the logs in it, and than `seen`, the greatest that anything else there knows of.
/// A counter that was lost or went back takes nothing away from what was stored since.
///
/// # Errors
/// When the counter can't be read or made durable.
pub fn begin(disk: &Arc<dyn Disk>, dir: &Path, seen: u64) -> Result<BufferId, CursorError> {
    let (mut cursor, value) = Cursor::open(Arc::clone(disk), &dir.join("life"))?;
    let counted = value
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let logs = LOGS
        .iter()
        .map(|log| greatest_named(&**disk, &dir.join(log)));
    let life = 1 + logs.fold(counted.max(seen), u64::max);
    cursor.write(&life.to_le_bytes())?;
    let stamp = disk.stamp().map_err(|source| CursorError::Io {
        doing: "drawing a name for the life behind",
        path: dir.join("life"),
        source,
    })?;
    if planted!(BufferKept)
        && let Some(kept) = LOGS
            .iter()
            .filter_map(|log| newest_named(&**disk, &dir.join(log)))
            .max()
    {
        return Ok(kept);
    }
    Ok(BufferId::new(life, stamp.salt))
}

/// The folders whose segments are named by their life.
const LOGS: [&str; 9] = [
    "wal",
    "spool/series",
    "spool/series-copy",
    "spool/alerts",
    "spool/telemetry",
    "spool/aggregates",
    "spool/events",
    "spool/gaps",
    "deadletter",
];

/// The greatest life that names a segment in `dir`; its name begins with the life's 32 digits.
fn greatest_named(disk: &dyn Disk, dir: &Path) -> u64 {
    newest_named(disk, dir).map_or(0, BufferId::life)
}

fn newest_named(disk: &dyn Disk, dir: &Path) -> Option<BufferId> {
    let files = disk.list(dir).unwrap_or_default();
    let lives = files.iter().filter_map(|name| name.get(..32)?.parse().ok());
    lives.max_by_key(|life: &BufferId| life.life())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_journal::sim_disk::Salts;
    use tributary_journal::{OsDisk, SimDisk};

    /// Copies of one disk, begun once each.
    fn begun_on_a_copy(disk: &SimDisk, salts: Salts) -> (BufferId, BufferId) {
        let (ours, copy): (Arc<dyn Disk>, Arc<dyn Disk>) =
            (Arc::new(disk.clone()), Arc::new(disk.fork(salts)));
        let begin = |disk| begin(disk, Path::new("/data"), 0).unwrap();
        (begin(&ours), begin(&copy))
    }

    #[test]
    fn machines_with_copies_of_one_disk_have_lives_of_two_names() {
        let disk = SimDisk::new(1);
        let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
        dynamic.create_dir_all(Path::new("/data")).unwrap();
        begin(&dynamic, Path::new("/data"), 0).unwrap();
        let (ours, copy) = begun_on_a_copy(&disk, Salts::Other(9));
        assert_eq!((ours.life(), copy.life()), (2, 2));
        assert_ne!(ours, copy);
        // Only machines that draw the same, as one that was resumed twice, are not told apart.
        let (ours, copy) = begun_on_a_copy(&disk, Salts::Same);
        assert_eq!(ours, copy);
    }

    #[test]
    fn a_life_on_a_real_disk_is_named_anew_each_time() {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let names = [(), ()].map(|()| {
            let dir = tempfile::tempdir().unwrap();
            begin(&disk, dir.path(), 0).unwrap()
        });
        assert_eq!(names.map(|life| life.life()), [1, 1]);
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn every_open_is_a_later_life_even_when_the_counter_is_lost() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        let first = begin(&disk, dir, 0).unwrap();
        let second = begin(&disk, dir, 0).unwrap();
        assert_eq!((first.life(), second.life()), (1, 2));
        disk.create_dir_all(&dir.join("wal")).unwrap();
        let segment = format!("{}-{:020}.seg", BufferId::new(40, 7), 0);
        disk.create(&dir.join("wal").join(segment), 4096).unwrap();
        disk.remove(&dir.join("life")).unwrap();
        assert_eq!(begin(&disk, dir, 0).unwrap().life(), 41);
        disk.remove(&dir.join("life")).unwrap();
        assert_eq!(begin(&disk, dir, 90).unwrap().life(), 91);
    }
}
