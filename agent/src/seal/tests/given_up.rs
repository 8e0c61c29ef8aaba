//! Dead letters that are given up: every reading in them stands in exactly one place, in a batch,
//! in a letter that is kept, or under a gap, whatever is put back meanwhile and whenever the power
//! fails.

use super::*;
use crate::deadletter::put_back::LetterId;
use crate::decode::{Incoming, Rows};
use std::collections::BTreeSet;

/// A letter as it stands in the log.
type Held = (LetterId, Vec<u8>);

/// Where the readings are: declared, in batches of telemetry by their sequence numbers, and in
/// letters that are kept and were not put back.
#[derive(Default, PartialEq, Eq, Debug)]
struct Places {
    declared: u64,
    sealed: Vec<Option<i64>>,
    kept: Vec<Option<i64>>,
}

impl Places {
    fn sum(&self) -> u64 {
        self.declared + (self.sealed.len() + self.kept.len()) as u64
    }
}

fn places(life: &mut Life) -> Places {
    let mut found = Places::default();
    let mut decoder = Decoder::new();
    for (LaneKey { buffer, lane }, end) in lanes_of(life) {
        for number in 0..end {
            let key = BatchKey {
                buffer,
                lane,
                number,
            };
            match life.spool.read(key).unwrap().decode(&mut decoder).unwrap() {
                Content::Gap(gap) => found.declared += gap.readings.unwrap(),
                Content::Readings(readings) => {
                    let rows = readings.rows().iter();
                    found.sealed.extend(rows.map(|row| row.meta.device_seq));
                }
                Content::Series { .. } => {}
            }
        }
    }
    let done = life.stage.put_back().done();
    let mut rows = Rows::new();
    for (_, bytes) in life.letters().iter().filter(|(id, _)| !done.holds(*id)) {
        let letter = Letter::read(bytes).unwrap();
        let message = Incoming {
            topic: letter.topic,
            properties: letter.properties,
            payload: letter.payload,
            received_time: 1,
        };
        if Rules::builtin().decode(&message, &mut rows).is_ok() {
            found
                .kept
                .extend(rows.iter().map(|row| row.meta.device_seq));
        }
    }
    found
}

/// As the agent opens it, but for rare checkpoints: they cover what came before them, too.
fn open(disk: &Arc<dyn Disk>) -> (Life, LogReader) {
    let letters = LogConfig {
        quota_bytes: DEAD_LETTER_BYTES,
        ..log_config(LogKind::DeadLetter, WAL_SEGMENT_BYTES)
    };
    let wal = (WAL_SEGMENT_BYTES, CHECKPOINT_WAL_BYTES);
    Life::open_as(disk, &Rules::builtin(), wal, letters, None)
}

/// A message whose series are all new: once their names have no room it is a letter.
fn flood(message: u64, members: usize, value: &str) -> Vec<u8> {
    let members: Vec<String> = (0..members)
        .map(|n| format!("\"{n:0>240}-{message:0>6}\":{value}"))
        .collect();
    let payload = format!("{{{}}}", members.join(","));
    record(&"d".repeat(250), payload.as_bytes(), message as u16)
}

/// Takes the room for names, and then so many letters of three readings; how many readings came.
fn fill(life: &mut Life, letters: u64) -> u64 {
    let (mut message, mut sent) = (0, 0);
    let mut send = |life: &mut Life, members: usize, value: &str| {
        message += 1;
        sent += members as u64;
        life.commit(&[flood(message, members, value)]).unwrap();
        life.stage.idle().unwrap();
        life.stage.tick(life.now()).unwrap();
    };
    while life.letters().is_empty() {
        send(life, 900, "1");
    }
    let text = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..letters {
        send(life, 3, &text);
    }
    life.stage.finish(life.now()).unwrap();
    sent
}

/// Two readings more, behind which all that is owed is declared.
fn settle(life: &mut Life) -> Places {
    for (value, packet_id) in [(b"1", 100), (b"2", 101)] {
        life.commit(&[record("ok/m", value, packet_id)]).unwrap();
        life.stage.finish(life.now()).unwrap();
    }
    places(life)
}

/// Its record stood in the log behind the messages whose letters took its room.
#[test]
fn a_letter_that_went_while_it_was_put_back_is_declared_and_gives_nothing() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(91));
    let (mut life, _) = open(&disk);
    let sent = fill(&mut life, 330);
    let oldest = life.letters().remove(0);
    drop(life);
    let (mut life, wal) = open(&disk);
    life.replay(wal).unwrap();
    let junk = vec![b'{'; 200_000];
    for packet_id in 1..41 {
        life.commit(&[record("bad/m", &junk, packet_id)]).unwrap();
        life.stage.tick(life.now()).unwrap();
    }
    assert!(life.stage.dead.is_gone(oldest.0));
    life.put_back(std::slice::from_ref(&oldest)).unwrap();
    let found = settle(&mut life);
    assert!(found.declared > 0);
    assert_eq!(found.sum(), sent + 2);
    // And a replay of its record finds it gone, too.
    drop(life);
    let (mut life, wal) = open(&disk);
    life.replay(wal).unwrap();
    life.put_back(&[oldest]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(places(&mut life), found);
}

/// The checkpoint does not know of its record yet, and what comes before it in the log takes its
/// room.
#[test]
fn a_letter_that_goes_while_its_record_is_replayed_is_declared_or_read() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(92));
    let (mut life, _) = open(&disk);
    let sent = fill(&mut life, 345);
    let oldest = life.letters().remove(0);
    life.commit(&[record("bad/m", b"{", 1)]).unwrap();
    life.put_back(&[oldest]).unwrap();
    drop(life);
    let (mut life, wal) = open(&disk);
    life.replay(wal).unwrap();
    life.stage.idle().unwrap();
    assert_eq!(settle(&mut life).sum(), sent + 2);
}

/// Nothing but letters comes, so that nothing else has a lane sealed.
#[test]
fn letters_are_covered_by_the_time_they_go() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(93));
    let (mut life, _) = open(&disk);
    let mut sent = fill(&mut life, 0);
    let mut message = 1_000;
    while !life.stage.dead.owes() {
        let records: Vec<_> = (0..500)
            .map(|_| {
                message += 1;
                record("d", format!("{{\"a{message}\":1}}").as_bytes(), 1)
            })
            .collect();
        sent += 500;
        life.stage.tick(life.now()).unwrap();
        life.commit(&records).unwrap();
    }
    // The process is killed before what went is declared.
    drop(life);
    let (mut life, wal) = open(&disk);
    life.replay(wal).unwrap();
    assert_eq!(settle(&mut life).sum(), sent + 2);
}

/// What is sent to a small life, and which of it is in the log for certain.
#[derive(Default)]
struct Sent {
    next: i64,
    durable: BTreeSet<i64>,
    /// What the log was given last: where, and with which numbers.
    last: Option<(LifeId, u64, Vec<i64>)>,
}

impl Sent {
    /// Commits messages of one reading each, of so many bytes; `None`: the disk is gone.
    fn commit(&mut self, life: &mut Life, count: i64, bytes: usize) -> Option<()> {
        let all: Vec<i64> = (self.next..self.next + count).collect();
        self.next += count;
        self.last = Some((life.wal.life(), life.wal.next_number(), all.clone()));
        let text = "x".repeat(bytes);
        let message = |seq: &i64| {
            let payload = format!("{{\"value\":\"{text}\",\"seq\":{seq}}}");
            record("site/d1/m", payload.as_bytes(), (seq % 60_000 + 1) as u16)
        };
        life.commit(&all.iter().map(message).collect::<Vec<_>>())?;
        self.settle(None);
        Some(())
    }

    /// Takes what was given to the log last for sent, if the log holds it.
    fn settle(&mut self, log: Option<&LogReader>) {
        let Some((life, number, all)) = self.last.take() else {
            return;
        };
        let span = log.and_then(|log| log.lives().into_iter().find(|span| span.life == life));
        if log.is_none() || span.is_some_and(|span| number < span.end) {
            self.durable.extend(all);
        }
    }
}

const SMALL_SEGMENT_BYTES: u64 = 64 * 1024;

/// A life with little room, replayed, in which the built-in rules hold.
fn small(disk: &Arc<dyn Disk>, sent: &mut Sent) -> Option<Life> {
    let letters = LogConfig {
        quota_bytes: 4 * SMALL_SEGMENT_BYTES,
        ..log_config(LogKind::DeadLetter, SMALL_SEGMENT_BYTES)
    };
    let wal = (WAL_SEGMENT_BYTES, 64 * 1024);
    let rules = Rules::builtin();
    let texts = Texts::open(Arc::clone(disk), &Path::new(DATA).join("config")).ok()?;
    texts.keep(&rules).ok()?;
    let (mut life, log) = Life::open_as(disk, &rules, wal, letters, None);
    sent.settle(Some(&log));
    life.replay(log)?;
    with_rules(&mut life, true)?;
    Some(life)
}

/// Has the log name rules, or none that anybody knows: then what comes is a letter.
fn with_rules(life: &mut Life, known: bool) -> Option<()> {
    let named = match known {
        true => Announcement(Rules::builtin().hash()).write(),
        false => b"\x09nobody knows".to_vec(),
    };
    life.commit_as(RecordKind::Configuration, &[named])
}

/// What becomes of letters at the edge of their room: some go, some were put back before, some are
/// put back behind that, and some are letters again; with and without room on the disk.
fn edge(life: &mut Life, sim: &SimDisk, sent: &mut Sent) -> Option<()> {
    let first: Vec<Held> = life.letters();
    sent.commit(life, 3, 10)?;
    life.put_back(&first[..4])?;
    with_rules(life, false)?;
    life.put_back(&first[2..6])?;
    sent.commit(life, 20, 2_000)?;
    stored(life.stage.idle())?;
    with_rules(life, true)?;
    sent.commit(life, 2, 10)?;
    life.now += 2_000;
    stored(life.stage.tick(life.now()))?;
    with_rules(life, false)?;
    sent.commit(life, 30, 2_000)?;
    stored(life.stage.tick(life.now()))?;
    with_rules(life, true)?;
    // By now some of these are gone.
    life.put_back(&first[4..40])?;
    sent.commit(life, 1, 10)?;
    stored(life.stage.finish(life.now()))?;
    sim.set_full(true);
    with_rules(life, false)?;
    for _ in 0..4 {
        sent.commit(life, 8, 2_000)?;
        stored(life.stage.idle())?;
        stored(life.stage.tick(life.now()))?;
    }
    with_rules(life, true)?;
    sent.commit(life, 1, 10)?;
    stored(life.stage.finish(life.now()))
}

/// A disk on which the letters of a small life take nearly all their room.
fn nearly_full() -> (SimDisk, Sent) {
    let sim = SimDisk::new(94);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut sent = Sent::default();
    let mut life = small(&disk, &mut sent).unwrap();
    with_rules(&mut life, false).unwrap();
    for _ in 0..11 {
        sent.commit(&mut life, 10, 2_000).unwrap();
        life.stage.idle().unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    assert!(!life.stage.dead.owes());
    (sim, sent)
}

/// One reading of each message that the log took, in one place.
fn check(places: &Places, sent: &Sent, cut: u64) {
    let mut known = BTreeSet::new();
    for seq in places.sealed.iter().chain(&places.kept) {
        let seq = seq.unwrap();
        assert!(known.insert(seq), "cut {cut}: {seq} is in two places");
        assert!(sent.durable.contains(&seq), "cut {cut}: {seq} was not sent");
    }
    let durable = sent.durable.len() as u64;
    assert_eq!(
        places.sum(),
        durable,
        "cut {cut}: {} declared",
        places.declared
    );
}

#[test]
fn whenever_the_power_fails_a_reading_is_sealed_kept_or_declared_once() {
    let (full, filled) = nearly_full();
    let mut declared = 0;
    for cut in 1.. {
        // As it was filled above: what it took is all durable.
        let mut sent = Sent {
            next: filled.next,
            durable: filled.durable.clone(),
            last: None,
        };
        let sim = full.crash(Survival::All);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut life = small(&disk, &mut sent).unwrap();
        sim.power_off_after(cut);
        let whole = edge(&mut life, &sim, &mut sent).is_some();
        drop(life);
        let sim = match cut % 4 {
            0 => sim.crash(Survival::Nothing),
            1 => sim.crash(Survival::RandomHalf(cut)),
            2 => sim.crash(Survival::All),
            _ => sim.kill(),
        };
        sim.set_full(false);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut life = small(&disk, &mut sent).unwrap();
        for _ in 0..2 {
            sent.commit(&mut life, 1, 10).unwrap();
            life.stage.finish(life.now()).unwrap();
        }
        let found = places(&mut life);
        check(&found, &sent, cut);
        declared = declared.max(found.declared);
        if whole {
            assert!(cut > 50, "{cut} writes");
            break;
        }
    }
    assert!(declared > 0);
}

/// What can't be sealed together is sealed message by message: each covers itself, and what was
/// refused before it.
#[test]
fn what_was_refused_is_declared_once_also_when_each_message_is_sealed_alone() {
    for cut in 1.. {
        let sim = SimDisk::new(95);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let (mut life, _) = Life::open(&disk);
        let mut records = Vec::new();
        for (packet_id, refused) in (1..).zip([true, false, true, true, false, false, true]) {
            let bytes = record("site/d1/m", format!("{packet_id}").as_bytes(), packet_id);
            records.push(match refused {
                true => (RecordKind::Refused, [vec![2], bytes].concat()),
                false => (RecordKind::Message, bytes),
            });
        }
        life.commit_records(&records).unwrap();
        let under = Origin {
            buffer: life.present,
            number: life.wal.next_number(),
        };
        sim.power_off_after(cut);
        let now = life.now();
        let whole = stored(life.stage.seal_each(Lane::Telemetry, under, now)).is_some();
        drop(life);
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(Survival::All));
        let (mut life, wal) = Life::open(&disk);
        life.replay(wal).unwrap();
        life.stage.finish(life.now()).unwrap();
        let found = places(&mut life);
        assert_eq!((found.declared, found.sealed.len()), (4, 3), "cut {cut}");
        if whole {
            assert!(cut > 6, "{cut} writes");
            break;
        }
    }
}
