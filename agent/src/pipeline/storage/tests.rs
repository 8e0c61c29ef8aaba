//! What is made of checkpoints of detection that this build can't read.

use super::*;
use crate::config::Config;
use crate::judge::time_record;
use crate::seal::Origin;
use crate::wal::RecordKind;

/// 2026-05-01.
const NOW: i64 = 1_777_593_600_000_000;

fn settings(dir: &Path) -> Settings {
    let text = format!("[agent]\ndata_dir = \"{}\"\n", dir.display());
    Settings::from_config(&Config::parse(&text, []).unwrap())
}

struct Place {
    dir: tempfile::TempDir,
    disk: Arc<dyn Disk>,
}

impl Place {
    fn checkpoints(&self) -> Checkpoints {
        let dir = self.dir.path().join("checkpoint");
        Checkpoints::open(Arc::clone(&self.disk), &dir, "judge").unwrap()
    }

    fn judging(&self) -> Judging {
        let texts = Texts::open(Arc::clone(&self.disk), &self.dir.path().join("config")).unwrap();
        let settings = settings(self.dir.path());
        let beside = Beside {
            meter: Meter::default(),
            catalogue: Catalogue::unkept(),
            idle: Some(self.dir.path().join("idle")),
            tripped: false,
        };
        let judging = open_judge(&settings, &self.disk, &texts, &beside);
        judging.unwrap().unwrap()
    }

    /// The numbers of the log up to which good checkpoints know it, the newest first.
    fn held(&self) -> Vec<u64> {
        let held = self.checkpoints().valid();
        let positions = held.iter().map(|held| Known::position(&held.body));
        positions.map(|at| at.unwrap().number).collect()
    }
}

/// What is known of a log of so many records.
fn known(place: &Place, records: u64) -> Vec<u8> {
    let mut judge = place.judging().judge;
    let buffer = BufferId::new(1, 1);
    for number in 0..records {
        let tick = time_record(RecordKind::Tick, NOW, crate::judge::KernelClock::default());
        let (kind, bytes) = tick.iter().next().unwrap();
        judge.record(Origin { buffer, number }, kind, bytes, NOW, &mut Vec::new());
    }
    judge.known().unwrap().pack().unwrap()
}

#[test]
fn checkpoints_of_another_version_go_and_take_no_good_one_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let place = Place { dir, disk };
    let good = known(&place, 5);
    let mut other = known(&place, 9);
    other[0] ^= 0x40;
    place.checkpoints().write(&good).unwrap();
    place.checkpoints().write(&other).unwrap();
    let judging = place.judging();
    assert_eq!(judging.judge.position().map(|at| at.number), Some(5));
    drop(judging);
    assert_eq!(place.held(), [5], "the other one is gone");
    // Two are kept: one that can't be read would be one of them.
    place.checkpoints().write(&known(&place, 12)).unwrap();
    assert_eq!(place.held(), [12, 5]);
    let judging = place.judging();
    assert_eq!(judging.judge.position().map(|at| at.number), Some(12));
}
