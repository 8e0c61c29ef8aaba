//! Each kind of bad input: what becomes of it, and that it is counted by its reason.

use super::*;
use crate::deadletter::{TOO_LARGE, WORD_TOO_LARGE, dropped};
use crate::decode::{Incoming, Rows};
use crate::limits::{DICTIONARY_BYTES_MAX, PACKET_BYTES_MAX};
use crate::wal::TooLarge;
use metrics_exporter_prometheus::PrometheusBuilder;
use tributary_protocol::limits::MESSAGE_READINGS_MAX;

/// What is counted as dead letters while `run` runs, by reason.
fn counted(run: impl FnOnce()) -> BTreeMap<String, u64> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, run);
    let page = recorder.handle().render();
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("tributary_agent_dead_letters_total{reason=\"")?;
        let (reason, count) = rest.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().unwrap()))
    });
    lines.collect()
}

/// Every letter: its word, topic and payload.
fn buried(life: &Life) -> Vec<(String, String, Vec<u8>)> {
    let reader = life.stage.dead.reader();
    let mut all = Vec::new();
    for span in reader.lives() {
        let mut entries = Vec::new();
        if span.first < span.end {
            reader
                .read(span.life, span.first, usize::MAX >> 1, &mut entries)
                .unwrap();
        }
        for entry in entries {
            let letter = Letter::read(&entry.bytes).unwrap();
            let payload = letter.payload.to_vec();
            all.push((letter.word.to_owned(), letter.topic.to_owned(), payload));
        }
    }
    all
}

fn nested(depth: usize) -> Vec<u8> {
    format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).into_bytes()
}

// tidy: function because it is one table.
#[test]
fn each_kind_is_kept_whole_and_counted_by_its_reason() {
    let array = format!("[{}1]", "1,".repeat(99_999)).into_bytes();
    let samples = vec![0u8; 2 * MESSAGE_READINGS_MAX + 2];
    let deep = nested(10_000);
    assert!(deep.len() < PACKET_BYTES_MAX && array.len() < PACKET_BYTES_MAX);
    let table: [(&str, &[u8], &str); 17] = [
        ("d/m", &array, "too_many_readings"),
        ("wave/m", &samples, "too_many_readings"),
        ("d/m", &deep, "json"),
        ("d/m", &deep[..20_000], "json"),
        ("d/m", b"{\"value\":1e999}", "number"),
        ("d/m", b"-1e999", "number"),
        ("d/m", b"", "empty"),
        ("d/m", b"21.5\xc3\x28", "not_utf8"),
        ("d\n/m", b"1", "name"),
        ("d/\u{7f}", b"1", "name"),
        ("d/m", b"{\"a\\nb\":1}", "name"),
        ("d/m", b"{\"a\\u0000b\":1}", "name"),
        ("d/m", b"a\0b", "text"),
        ("typed/m", b"warm", "type"),
        ("typed/m", b"{\"value\":1}", "form"),
        ("wave/m", b"\x01", "waveform"),
        ("at/m", b"{\"w\":1}", "missing"),
    ];
    let rules = Rules::parse(
        "[[decode]]\ntopic = \"typed/+\"\nformat = \"value\"\ntype = \"i64\"\n\
         [[decode]]\ntopic = \"wave/+\"\nformat = \"i16le\"\nrate_hz = 1\n\
         [[decode]]\ntopic = \"at/+\"\nvalue = \"/v\"\n",
    );
    let rules = rules.unwrap();
    let texts = |disk: &Arc<dyn Disk>| {
        let texts = Texts::open(Arc::clone(disk), &Path::new(DATA).join("config")).unwrap();
        texts.keep(&rules).unwrap();
    };
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(31));
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (_, _, reason) in table {
        *expected.entry(reason.to_owned()).or_default() += 1;
    }
    expected.insert(WORD_TOO_LARGE.into(), 1);
    expected.insert("record".into(), 1);
    let mut kept = Vec::new();
    let counts = counted(|| {
        texts(&disk);
        let (mut life, _) = Life::open_sized(&disk, &rules, WAL_SEGMENT_BYTES);
        let announcement = crate::configuration::Announcement(rules.hash()).write();
        life.commit_as(RecordKind::Configuration, &[announcement])
            .unwrap();
        for (packet_id, (topic, payload, _)) in (1..).zip(table) {
            life.commit(&[record(topic, payload, packet_id)]).unwrap();
        }
        let bytes = record("d/large", b"the head", 99);
        let Ok(crate::wal::Record::Message(message)) =
            crate::wal::Record::parse(RecordKind::Message.code(), &bytes)
        else {
            panic!("it is one")
        };
        let mut large = Vec::new();
        TooLarge {
            message,
            payload_bytes: 300_000,
        }
        .write(&mut large);
        life.commit_as(RecordKind::TooLarge, &[large]).unwrap();
        life.commit_as(
            RecordKind::Message,
            &[b"\x09what a later version wrote".to_vec()],
        )
        .unwrap();
        life.commit(&[record("d/m", b"21.5", 100)]).unwrap();
        life.stage.finish(life.now()).unwrap();
        kept = buried(&life);
        let lanes = lanes_of(&life).into_iter();
        let telemetry = lanes.filter(|(key, _)| key.lane == Lane::Telemetry);
        assert_eq!(
            telemetry.map(|(_, end)| end).sum::<u64>(),
            1,
            "the good one is sealed"
        );
    });
    assert_eq!(counts, expected);
    for ((topic, payload, reason), letter) in table.iter().zip(&kept) {
        let whole = ((*reason).to_owned(), (*topic).to_owned(), payload.to_vec());
        assert_eq!(*letter, whole);
    }
    let large = &kept[table.len()];
    assert_eq!(
        (&*large.0, &*large.1, &*large.2),
        (WORD_TOO_LARGE, "d/large", &b"the head"[..])
    );
    assert!(!TOO_LARGE.is_empty() && kept.len() == table.len() + 2);
    // A replay after a crash counts and keeps none of what is covered a second time.
    let again = counted(|| {
        texts(&disk);
        let (mut life, wal) = Life::open_sized(&disk, &rules, WAL_SEGMENT_BYTES);
        life.replay(wal).unwrap();
        life.stage.finish(life.now()).unwrap();
        assert_eq!(buried(&life), kept);
    });
    assert_eq!(again, BTreeMap::new());
}

/// What is read of rows: device, metric, sequence number, and whether the clock is suspect.
fn rows(life: &mut Life) -> Vec<(String, String, Option<i64>, bool)> {
    let mut decoder = Decoder::new();
    let (mut books, mut all) = (BTreeMap::<BufferId, Vec<_>>::new(), Vec::new());
    for (key, end) in lanes_of(life) {
        let book = books.entry(key.buffer).or_default();
        for number in 0..end {
            let key = BatchKey {
                buffer: key.buffer,
                lane: key.lane,
                number,
            };
            match life.spool.read(key).unwrap().decode(&mut decoder).unwrap() {
                Content::Series { defs, .. } => book.extend(defs),
                Content::Readings(readings) => all.extend(readings.rows().iter().map(|row| {
                    let series: &SeriesDef = &book[row.series.0 as usize];
                    let suspect = row.meta.flags.has(Flags::CLOCK_SUSPECT);
                    let (device, metric) = (series.device.to_string(), series.metric.to_string());
                    (device, metric, row.meta.device_seq, suspect)
                })),
                Content::Gap(_) => panic!("nothing was lost"),
            }
        }
    }
    all
}

#[test]
fn odd_names_are_names_and_lead_nowhere() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(32));
    let (mut life, _) = Life::open(&disk);
    let topics = [
        "../../etc/passwd",
        "a\"b/c'd",
        "a b/;drop table",
        "/",
        "a//b",
        "%2e%2e/$(x)",
    ];
    for (packet_id, topic) in (1..).zip(topics) {
        life.commit(&[record(topic, b"1", packet_id)]).unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let mut names: Vec<_> = rows(&mut life)
        .into_iter()
        .map(|row| (row.0, row.1))
        .collect();
    names.sort();
    let mut expected = [
        ("../../etc", "passwd"),
        ("a\"b", "c'd"),
        ("a b", ";drop table"),
        ("/", "value"),
        ("a/", "b"),
        ("%2e%2e", "$(x)"),
    ]
    .map(|(device, metric)| (device.to_owned(), metric.to_owned()));
    expected.sort();
    assert_eq!(names, expected);
    assert!(buried(&life).is_empty());
}

#[test]
fn a_clock_in_1970_or_2099_is_suspect_and_its_readings_are_kept() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(33));
    let (mut life, _) = Life::open(&disk);
    for (packet_id, (ts, seq)) in (1..).zip([
        ("0", 1),
        ("\"1970-01-01T00:00:01Z\"", 2),
        ("\"2099-06-01T00:00:00Z\"", 3),
        ("4083955200", 4),
        ("1700000000", 5),
    ]) {
        let payload = format!("{{\"value\":1,\"ts\":{ts},\"seq\":{seq}}}");
        life.commit(&[record("d/m", payload.as_bytes(), packet_id)])
            .unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let suspect: BTreeMap<_, _> = rows(&mut life)
        .into_iter()
        .map(|(_, _, seq, suspect)| (seq.unwrap(), suspect))
        .collect();
    let expected = [(1, true), (2, true), (3, true), (4, true), (5, false)];
    assert_eq!(suspect, BTreeMap::from(expected));
}

#[test]
fn a_device_that_counts_from_0_again_loses_nothing() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(34));
    let (mut life, _) = Life::open(&disk);
    let mut packet_id = 0;
    let mut send = |life: &mut Life, boot: i64, seq: i64| {
        packet_id += 1;
        let payload = format!("{{\"value\":{},\"seq\":{seq}}}", boot * 100 + seq);
        life.commit(&[record("d/m", payload.as_bytes(), packet_id)])
            .unwrap();
    };
    for boot in 0..3 {
        for seq in 0..5 {
            send(&mut life, boot, seq);
        }
    }
    // What is truly sent again, number and content, is not kept again.
    for seq in 0..5 {
        send(&mut life, 2, seq);
    }
    life.stage.finish(life.now()).unwrap();
    assert_eq!(rows(&mut life).len(), 15);
}

#[test]
fn a_flood_of_new_series_ends_at_its_share_and_others_go_on() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(35));
    let device = "d".repeat(250);
    let per_message = 900;
    let counts = counted(|| {
        let (mut life, _) = Life::open_sized(&disk, &Rules::builtin(), WAL_SEGMENT_BYTES);
        life.commit(&[record("known/m", b"1", 1)]).unwrap();
        // One at twice the room.
        let messages = 2 * DICTIONARY_BYTES_MAX / (per_message * 500);
        for message in 0..messages {
            let members: Vec<String> = (0..per_message)
                .map(|n| format!("\"{:0>247}\":1", message * per_message + n))
                .collect();
            let payload = format!("{{{}}}", members.join(","));
            life.commit(&[record(&device, payload.as_bytes(), 2 + message as u16)])
                .unwrap();
        }
        life.commit(&[record("known/m", b"2", 60_000)]).unwrap();
        life.commit(&[of_client(2, "new/m", b"3", 1)]).unwrap();
        life.stage.finish(life.now()).unwrap();
        let rows = rows(&mut life);
        let of = |device: &str| rows.iter().filter(|row| row.0 == device).count();
        assert_eq!((of("known"), of("new")), (2, 1));
        let letters = buried(&life);
        assert!(
            letters
                .iter()
                .all(|(word, topic, _)| word == "series_share" && *topic == device)
        );
    });
    let share = counts["series_share"] as usize;
    let half = DICTIONARY_BYTES_MAX / (per_message * 500) / 2;
    assert!(share > 2 * half, "{counts:?}");
    assert_eq!(counts.len(), 1, "{counts:?}");
}

#[test]
fn what_was_over_its_share_stays_a_dead_letter_in_the_next_life() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(36));
    let device = "d".repeat(250);
    let sized = || Life::open_sized(&disk, &Rules::builtin(), WAL_SEGMENT_BYTES);
    let (mut life, _) = sized();
    let mut message = 0;
    while buried(&life).is_empty() {
        message += 1;
        let members: Vec<String> = (0..900)
            .map(|n| format!("\"{:0>240}-{message:0>6}\":{message}", n))
            .collect();
        let payload = format!("{{{}}}", members.join(","));
        life.commit(&[record(&device, payload.as_bytes(), message)])
            .unwrap();
        life.stage.idle().unwrap();
    }
    // The process ends before a lane covers it: the next one begins with an empty dictionary, and
    // the letter may have been put back by then.
    drop(life);
    let (mut life, wal) = sized();
    life.replay(wal).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(buried(&life).len(), 1);
    let rows = rows(&mut life);
    let of = |message: u16| {
        let named = format!("-{message:0>6}");
        rows.iter().filter(|row| row.1.ends_with(&named)).count()
    };
    assert_eq!((of(1), of(message - 1), of(message)), (900, 900, 0));
}

/// Readings of a life's dead letters that are kept, and how many letters those are.
fn held_in_letters(life: &Life) -> (u64, u64) {
    let (mut readings, mut letters) = (0, 0);
    let mut decoded = Rows::new();
    for (_, topic, payload) in buried(life) {
        let message = Incoming {
            topic: &topic,
            payload: &payload,
            properties: crate::decode::UserProperties::NONE,
            received_time: 1,
        };
        Rules::builtin().decode(&message, &mut decoded).unwrap();
        readings += decoded.len() as u64;
        letters += 1;
    }
    (readings, letters)
}

/// Readings that the spool's gaps declare, and readings that it holds.
fn declared_and_held(life: &mut Life) -> (u64, u64) {
    let (mut declared, mut held) = (0, 0);
    for (key, end) in lanes_of(life) {
        for number in 0..end {
            let LaneKey { buffer, lane } = key;
            let batch = life.spool.read(BatchKey {
                buffer,
                lane,
                number,
            });
            let batch = batch.unwrap();
            match batch.gap() {
                Some(gap) => declared += gap.readings.unwrap(),
                None if key.lane == Lane::Telemetry => held += u64::from(batch.rows()),
                None => {}
            }
        }
    }
    (declared, held)
}

#[test]
fn readings_in_dead_letters_that_find_no_room_are_declared_once() {
    let sim = SimDisk::new(37);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let sized = || Life::open_sized(&disk, &Rules::builtin(), WAL_SEGMENT_BYTES);
    let (mut life, _) = sized();
    let device = "d".repeat(250);
    let (mut sent, mut letters) = (0, 0);
    let mut send = |life: &mut Life, message: u16, members: usize, value: &str| {
        let members: Vec<String> = (0..members)
            .map(|n| format!("\"{n:0>240}-{message:0>6}\":{value}"))
            .collect();
        let payload = format!("{{{}}}", members.join(","));
        sent += members.len() as u64;
        let packet = [record(&device, payload.as_bytes(), message)];
        while life.commit(&packet).is_none() {
            life.stage.tick(life.now()).unwrap();
        }
        life.stage.tick(life.now()).unwrap();
    };
    let mut message = 0;
    while buried(&life).is_empty() {
        message += 1;
        send(&mut life, message, 900, "1");
        life.stage.idle().unwrap();
    }
    // From here on all are dead letters; more of them than there is room for.
    let text = format!("\"{}\"", "x".repeat(60_000));
    letters += 1;
    for _ in 0..420 {
        message += 1;
        letters += 1;
        send(&mut life, message, 3, &text);
    }
    // And then on a disk without a free block.
    sim.set_full(true);
    for _ in 0..40 {
        message += 1;
        letters += 1;
        send(&mut life, message, 3, &text);
    }
    // One more, that covers what was given up last.
    for value in ["1", "2"] {
        life.commit(&[of_client(2, "new/m", value.as_bytes(), 1)])
            .unwrap();
        life.stage.finish(life.now()).unwrap();
    }
    let tally_of = |disk: &Arc<dyn Disk>| {
        let dir = Path::new(DATA).join("deadletter");
        dropped::look(Arc::clone(disk), &dir).unwrap().unwrap()
    };
    let (in_letters, kept) = held_in_letters(&life);
    let tally = tally_of(&disk);
    assert!((50..letters).contains(&tally.letters), "{tally:?}");
    assert_eq!(tally.letters + kept, letters);
    let (declared, held) = declared_and_held(&mut life);
    assert!(declared >= 3 * 50);
    assert_eq!(declared + held + in_letters, sent + 2);

    // Another life neither counts nor declares them again.
    drop(life);
    sim.set_full(false);
    let (mut life, wal) = sized();
    life.replay(wal).unwrap();
    life.commit(&[of_client(2, "new/m", b"3", 7)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(tally_of(&disk), tally);
    assert_eq!(held_in_letters(&life), (in_letters, kept));
    assert_eq!(declared_and_held(&mut life), (declared, held + 1));
}

/// A will that can't be decoded, and the log of dead letters fails: no lane covers it before its
/// letter is durable, whatever is written meanwhile.
#[test]
fn a_letter_that_is_not_durable_is_covered_by_no_lane() {
    let sim = SimDisk::new(41);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (mut life, _) = Life::open(&disk);
    let will = Sent {
        device: 1,
        seq: 1,
        dup: false,
        will: true,
        received: 1,
        topic: "site/d1/m",
        payload: "{\"value\":",
    };
    life.commit(&[will.write()]).unwrap();
    sim.fail_syncs(u32::MAX);
    assert!(life.stage.finish(life.now()).is_err());
    sim.fail_syncs(0);
    life.spool.save(&SenderCursor::default())();
    drop(life);
    let disk: Arc<dyn Disk> = Arc::new(sim.crash(Survival::All));
    let (mut life, wal) = Life::open(&disk);
    life.replay(wal).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(buried(&life).len(), 1);
}
