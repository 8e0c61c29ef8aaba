//! Which life of the agent's storage this is: a counter that grows at every open, and 64 random
//! bits that tell it from a clone's. The counter is durable before the life is used.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk};
use tributary_protocol::ids::BufferId;

/// Begins the next life of the storage in `dir`. `wall_s`, seconds since 1970, stands in for a
/// counter that was lost: it is greater than any that was counted.
///
/// # Errors
/// When the counter can't be read or made durable.
pub fn begin(disk: &Arc<dyn Disk>, dir: &Path, wall_s: u64) -> Result<BufferId, CursorError> {
    let path = dir.join("life");
    let used_before = disk
        .list(&dir.join("wal"))
        .is_ok_and(|files| !files.is_empty());
    let (mut cursor, value) = Cursor::open(Arc::clone(disk), &path)?;
    let counted = value
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let life = match counted {
        Some(life) => life + 1,
        None if used_before => wall_s,
        None => 1,
    };
    cursor.write(&life.to_le_bytes())?;
    // Keyed afresh by the operating system for every process.
    let random = RandomState::new().hash_one((life, wall_s, std::process::id()));
    Ok(BufferId::new(life, random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_journal::SimDisk;

    #[test]
    fn every_open_is_a_later_life_even_when_the_counter_is_lost() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        let first = begin(&disk, dir, 1_000).unwrap();
        let second = begin(&disk, dir, 1_000).unwrap();
        assert_eq!((first.life(), second.life()), (1, 2));
        disk.create_dir_all(&dir.join("wal")).unwrap();
        disk.create(&dir.join("wal").join("some.seg"), 4096)
            .unwrap();
        disk.remove(&dir.join("life")).unwrap();
        let third = begin(&disk, dir, 1_000).unwrap();
        assert!(third > second);
        assert_eq!(begin(&disk, dir, 1_000).unwrap().life(), 1_001);
    }
}
