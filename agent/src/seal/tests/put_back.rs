//! Dead letters that are put back: each gives its readings once, with the time of then, by the
//! rules of now, however often it is asked for and whenever the power fails.

use super::*;
use crate::deadletter::put_back::{LetterId, PutBackRecord};
use std::collections::BTreeSet;

/// Rules under which `bad` messages are readings.
fn mended() -> Arc<Rules> {
    Rules::parse("[[decode]]\ntopic = \"site/{device}/{metric}\"\nvalue = \"/v\"\n").unwrap()
}

/// Rules under which they are dead letters.
fn broken() -> Arc<Rules> {
    Rules::parse("[[decode]]\ntopic = \"site/{device}/{metric}\"\nvalue = \"/w\"\n").unwrap()
}

fn bad(seq: i64) -> Vec<u8> {
    let payload = format!("{{\"v\":{seq},\"seq\":{seq}}}");
    record("site/d1/m", payload.as_bytes(), (seq % 60_000 + 1) as u16)
}

impl Life {
    pub(super) fn letters(&self) -> Vec<(LetterId, Vec<u8>)> {
        let reader = self.stage.dead.reader();
        let mut all = Vec::new();
        for span in reader.lives() {
            let mut entries = Vec::new();
            if span.first < span.end {
                reader
                    .read(span.life, span.first, usize::MAX >> 1, &mut entries)
                    .unwrap();
            }
            all.extend(entries.into_iter().map(|entry| {
                let id = LetterId {
                    life: entry.life,
                    number: entry.number,
                };
                (id, entry.bytes.to_vec())
            }));
        }
        all
    }

    /// Records that put these letters back, as the putter writes them.
    pub(super) fn put_back(&mut self, letters: &[(LetterId, Vec<u8>)]) -> Option<()> {
        let records: Vec<Vec<u8>> = letters
            .iter()
            .map(|(id, bytes)| PutBackRecord::of(*id, &Letter::read(bytes).unwrap()).write())
            .collect();
        self.commit_as(RecordKind::PutBack, &records)
    }

    fn begin(disk: &Arc<dyn Disk>, rules: &Arc<Rules>) -> Option<Self> {
        let texts = Texts::open(Arc::clone(disk), &Path::new(DATA).join("config")).ok()?;
        texts.keep(rules).ok()?;
        let (mut life, wal) = Self::open_with(disk, rules);
        life.replay(wal)?;
        let announcement = [Announcement(rules.hash()).write()];
        life.commit_as(RecordKind::Configuration, &announcement)?;
        Some(life)
    }

    /// Every reading's sequence number, its time, and how often it is there.
    fn read_back(&mut self) -> BTreeMap<i64, (i64, u32)> {
        self.read_lane(Lane::Telemetry)
    }

    fn read_lane(&mut self, lane: Lane) -> BTreeMap<i64, (i64, u32)> {
        let mut decoder = Decoder::new();
        let mut all: BTreeMap<i64, (i64, u32)> = BTreeMap::new();
        for (key, end) in lanes_of(self)
            .into_iter()
            .filter(|(key, _)| key.lane == lane)
        {
            for number in 0..end {
                let key = BatchKey {
                    buffer: key.buffer,
                    lane: key.lane,
                    number,
                };
                let batch = self.spool.read(key).unwrap();
                let Content::Readings(readings) = batch.decode(&mut decoder).unwrap() else {
                    panic!("nothing was lost")
                };
                for row in readings.rows() {
                    let of = all.entry(row.meta.device_seq.unwrap()).or_default();
                    *of = (row.meta.received_time, of.1 + 1);
                }
            }
        }
        all
    }
}

#[test]
fn a_letter_gives_its_readings_once_by_the_present_rules_with_the_time_of_then() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(21));
    let mut life = Life::begin(&disk, &broken()).unwrap();
    life.commit(&[bad(1), bad(2)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let letters = life.letters();
    assert_eq!(letters.len(), 2);
    drop(life);

    let mut life = Life::begin(&disk, &mended()).unwrap();
    life.put_back(&letters[..1]).unwrap();
    // Asked for twice, in one frame and later.
    life.put_back(&[letters[0].clone(), letters[1].clone(), letters[1].clone()])
        .unwrap();
    life.put_back(&letters).unwrap();
    life.stage.finish(life.now()).unwrap();
    let expected = BTreeMap::from([1, 2].map(|seq| (seq, (1_700_000_000_000_000, 1))));
    assert_eq!(life.read_back(), expected);
    drop(life);
    // The checkpoint knows; and so does the log behind it.
    let mut life = Life::begin(&disk, &mended()).unwrap();
    life.put_back(&letters).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(life.read_back(), expected);
    assert_eq!(life.letters().len(), 2);
}

#[test]
fn a_letter_that_is_still_none_is_another_letter_that_can_be_put_back() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(22));
    let mut life = Life::begin(&disk, &broken()).unwrap();
    life.commit(&[bad(1)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let first = life.letters();
    life.put_back(&first).unwrap();
    life.stage.finish(life.now()).unwrap();
    let both = life.letters();
    assert_eq!(both.len(), 2);
    drop(life);
    let mut life = Life::begin(&disk, &mended()).unwrap();
    // The first one is done with, for ever.
    life.put_back(&first).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(life.read_back(), BTreeMap::new());
    life.put_back(&both).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(
        life.read_back(),
        BTreeMap::from([(1, (1_700_000_000_000_000, 1))])
    );
}

/// What tells of a client, and not of what it measured, is an event, also when it was no reading at
/// first; a letter that is still none still knows.
#[test]
fn a_will_that_is_put_back_is_an_event() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(24));
    let mut life = Life::begin(&disk, &broken()).unwrap();
    let will = {
        let mut out = Vec::new();
        Message {
            session: 7,
            qos: Qos::AtMostOnce,
            dup: false,
            retain: false,
            v5: true,
            will: true,
            broker: false,
            packet_id: 0,
            received_time: 1_700_000_000_000_000,
            topic: "site/d1/m",
            properties: UserProperties::NONE,
            payload: b"{\"v\":1,\"seq\":1}",
        }
        .write(&mut out);
        out
    };
    life.commit(&[will, bad(2)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let letters = life.letters();
    let wills = |life: &Life| -> Vec<bool> {
        let letters = life.letters();
        let letters = letters
            .iter()
            .map(|(_, bytes)| Letter::read(bytes).unwrap());
        letters.map(|letter| letter.will).collect()
    };
    life.put_back(&letters).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(wills(&life), [true, false, true, false]);
    let again = life.letters().split_off(2);
    drop(life);
    let mut life = Life::begin(&disk, &mended()).unwrap();
    life.put_back(&again).unwrap();
    life.stage.finish(life.now()).unwrap();
    let once = |seq| BTreeMap::from([(seq, (1_700_000_000_000_000, 1))]);
    assert_eq!(life.read_lane(Lane::Events), once(1));
    assert_eq!(life.read_lane(Lane::Telemetry), once(2));
}

/// Its device has the same number and content among its marks, as of a letter that was read and
/// could not be sealed: no reason to take what is put back for a copy. The marks stay what they
/// were: what its device sends once more is one.
#[test]
fn marks_are_no_evidence_against_what_is_put_back() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(25));
    let mut life = Life::begin(&disk, &broken()).unwrap();
    life.commit(&[bad(1)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let letters = life.letters();
    drop(life);
    let mut life = Life::begin(&disk, &mended()).unwrap();
    life.commit(&[bad(1)]).unwrap();
    life.put_back(&letters).unwrap();
    life.stage.finish(life.now()).unwrap();
    let both = BTreeMap::from([(1, (1_700_000_000_000_000, 2))]);
    assert_eq!(life.read_back(), both);
    life.commit(&[bad(1)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(life.read_back(), both, "a repeat");
}

#[test]
fn what_is_remembered_goes_with_the_letters() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(23));
    let mut life = Life::begin(&disk, &broken()).unwrap();
    life.commit(&[bad(1)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let letters = life.letters();
    life.put_back(&letters).unwrap();
    life.stage.finish(life.now()).unwrap();
    drop(life);
    let mut life = Life::begin(&disk, &broken()).unwrap();
    assert_eq!(life.stage.put_back().done().ranges(), 1);
    let reader = life.stage.dead.reader().clone();
    for span in reader.lives() {
        reader.trim(span.life, span.end).unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    assert_eq!(life.stage.put_back().done().ranges(), 0);
}

/// Lives in which all letters are put back again and again, each ended by a power cut.
fn cut(seed: u64) {
    let mut random = Random(seed * 2 + 1);
    let mut disk = Arc::new(SimDisk::new(seed));
    let dynamic: Arc<dyn Disk> = disk.clone();
    let mut life = Life::begin(&dynamic, &broken()).unwrap();
    let seqs: Vec<i64> = (0..30).collect();
    for seq in &seqs {
        life.commit(&[bad(*seq)]).unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let letters = life.letters();
    assert_eq!(letters.len(), seqs.len());
    drop(life);
    let mut confirmed = BTreeSet::new();
    for life_number in 0..8 {
        let dynamic: Arc<dyn Disk> = disk.clone();
        let texts = Texts::open(Arc::clone(&dynamic), &Path::new(DATA).join("config")).unwrap();
        texts.keep(&mended()).unwrap();
        let (mut life, wal) = Life::open_with(&dynamic, &mended());
        if life_number < 7 {
            disk.power_off_after(1 + random.below(40));
        }
        let announcement = [Announcement(mended().hash()).write()];
        let mut powered = life.replay(wal).is_some()
            && life
                .commit_as(RecordKind::Configuration, &announcement)
                .is_some();
        for _ in 0..20 {
            let first = random.below(letters.len() as u64) as usize;
            let end = (first + 1 + random.below(8) as usize).min(letters.len());
            let some = letters.get(first..end).unwrap();
            powered = powered && life.put_back(some).is_some();
            if powered {
                confirmed.extend(first..end);
            }
            life.now += 700;
            powered = powered && stored(life.stage.tick(life.now())).is_some();
            if random.below(5) == 0 {
                powered = powered && stored(life.stage.finish(life.now())).is_some();
            }
        }
        if life_number == 7 {
            life.stage.finish(life.now()).unwrap();
            let back = life.read_back();
            assert!(
                back.values().all(|(_, copies)| *copies == 1),
                "seed {seed}: {back:?}"
            );
            for place in &confirmed {
                assert!(
                    back.contains_key(&seqs[*place]),
                    "seed {seed}: {place} is lost"
                );
            }
            assert_eq!(life.letters().len(), letters.len(), "seed {seed}");
        }
        drop(life);
        disk = crash(&disk, &mut random, seed);
    }
}

#[test]
fn whenever_the_power_fails_a_letter_that_was_put_back_gives_its_readings_once() {
    for seed in 0..20 {
        cut(seed);
    }
}
