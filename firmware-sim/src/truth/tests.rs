//! The truth ledger comes back whole, and what a killed run leaves is told from damage.

use super::*;
use crate::fault::FaultKind;
use crate::reading::Value;
use proptest::prelude::*;
use std::path::Path;

fn header() -> Header {
    Header {
        source: Source::Fleet,
        qos: 1,
        protocol: 4,
        numbered: true,
        seed: 42,
        started_ms: 1_700_000_000_000,
        rate_hz: 10.0,
        sensors: 2,
    }
}

fn write(path: &Path, events: &[Event]) {
    let mut writer = TruthWriter::create(path, &header()).unwrap();
    for event in events {
        writer.append(event).unwrap();
    }
    writer.finish().unwrap();
}

fn read(path: &Path) -> Result<(Vec<Event>, Tail), TruthError> {
    let reader = TruthReader::open(path)?;
    assert_eq!(*reader.header(), header());
    let mut events = Vec::new();
    let tail = reader.read(|event| {
        events.push(event);
        Ok(())
    })?;
    Ok((events, tail))
}

fn published(seq: u64, value: Value) -> Event {
    let time_us = 1_700_000_000_000_000 + seq as i64 * 100_000;
    Event::Published(Reading {
        series: 0,
        seq,
        time_us,
        value,
        written: None,
        fault: None,
    })
}

/// Enough events for several blocks.
fn many() -> Vec<Event> {
    let series = |series, device: &str| {
        let (device, metric) = (device.to_owned(), "temperature".to_owned());
        Event::Series {
            series,
            device,
            metric,
        }
    };
    let mut events = vec![
        series(0, "plant-1/pump-0000"),
        series(1, "plant-1/fän-0001"),
    ];
    for seq in 0..20_000 {
        events.push(published(seq, Value::F64(seq as f64 / 7.0)));
        events.push(Event::Acknowledged { series: 0, seq });
    }
    events
}

#[test]
fn what_was_written_is_read_with_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let mut events = many();
    events.push(published(20_000, Value::Text("läuft".into())));
    events.push(published(20_001, Value::Bool(true)));
    events.push(Event::Refused {
        series: 0,
        seq: 20_001,
    });
    events.extend(FaultKind::ALL.map(|kind| Event::Faulty {
        series: 0,
        seq: 20_000,
        kind,
    }));
    write(&path, &events);
    let (mut back, tail) = read(&path).unwrap();
    assert_eq!(tail, Tail::Whole);
    assert_eq!(
        back.pop(),
        Some(Event::End {
            published: 20_002,
            acknowledged: 20_000
        })
    );
    assert_eq!(back, events);
}

#[tokio::test]
async fn a_prompt_ledger_has_each_event_long_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let writer = TruthWriter::create(&path, &header()).unwrap();
    let (sender, writing) = writer.spawn(true);
    assert!(sender.is_due(1) && !TruthSender::nowhere().is_due(1));
    let events = &many()[..3];
    for (known, event) in events.iter().enumerate() {
        sender.send(vec![event.clone()]).await.unwrap();
        // Its header comes with the first event.
        while std::fs::metadata(&path).unwrap().len() == 0 || read(&path).unwrap().0.len() <= known
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            read(&path).unwrap(),
            (events[..=known].to_vec(), Tail::Open)
        );
    }
    drop(sender);
    writing.await.unwrap().unwrap();
    assert_eq!(read(&path).unwrap().1, Tail::Whole);
}

#[test]
fn a_tail_cut_anywhere_gives_the_blocks_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    write(&path, &many());
    let bytes = std::fs::read(&path).unwrap();
    let all = read(&path).unwrap().0;
    let mut sizes = Vec::new();
    for cut in (64..bytes.len()).step_by(9_973).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let (events, tail) = read(&path).unwrap();
        assert_ne!(tail, Tail::Whole, "cut at {cut}");
        assert_eq!(events[..], all[..events.len()]);
        sizes.push(events.len());
    }
    assert!(sizes.is_sorted() && sizes.last() > sizes.first());
}

#[test]
fn a_flipped_bit_is_damage_or_a_torn_last_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    write(&path, &many());
    let bytes = std::fs::read(&path).unwrap();
    let last_block = {
        let mut at = 64;
        loop {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if at + 8 + len == bytes.len() {
                break at;
            }
            at += 8 + len;
        }
    };
    for at in (0..bytes.len()).step_by(7_919) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        match read(&path) {
            Err(TruthError::Foreign { .. }) => assert!(at < 64),
            Err(TruthError::Damaged { .. }) => assert!(at >= 64),
            Ok((_, Tail::Torn { .. })) => assert!(at >= last_block, "at {at}"),
            other => panic!("flipped at {at}: {:?}", other.map(|(_, tail)| tail)),
        }
    }
}

proptest! {
    #[test]
    fn any_reading_comes_back(
        rows in prop::collection::vec((any::<u64>(), any::<i64>(), any::<u64>(), 0u8..4), 1..50)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("truth");
        let mut events = vec![Event::Series { series: 0, device: "d".into(), metric: "m".into() }];
        for (seq, time_us, bits, kind) in rows {
            let value = match kind {
                0 => Value::F64(f64::from_bits(bits)),
                1 => Value::I64(bits as i64),
                2 => Value::Bool(bits & 1 == 1),
                _ => Value::Text(format!("{bits:x}").into()),
            };
            let reading = Reading { series: 0, seq, time_us, value, written: None, fault: None };
            events.push(Event::Published(reading));
        }
        let writer = TruthWriter::create(&path, &header()).unwrap();
        drop(writer);
        write(&path, &events);
        let (mut back, tail) = read(&path).unwrap();
        back.pop();
        prop_assert_eq!(tail, Tail::Whole);
        prop_assert_eq!(back, events);
    }

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("truth");
        let mut bytes = codec::encode_header(&header());
        let crc = codec::block_crc(&tail);
        bytes.extend_from_slice(&(tail.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&tail);
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        let _ = read(&path);
    }
}
