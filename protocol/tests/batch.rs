//! Batches: golden files, and damage of every kind.

pub mod shapes;

use crate::counting;
use bytes::Bytes;
use shapes::Random;
use std::path::PathBuf;
use tributary_protocol::batch::{BatchError, Content, Decoder, SealedBatch};
use tributary_protocol::frame;
use tributary_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_READINGS_MAX, BATCH_TEXT_BYTES_MAX, BODY_RAW_BYTES_MAX,
};
use tributary_protocol::reading::{Readings, Row, ValueType};

/// The revision of each golden file that the present encoder writes. When the encoder finds
/// shorter bytes for the same content, add one: the files of all revisions must decode for ever.
const REVISION: u32 = 1;

fn golden(name: &str, revision: u32) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("batch-{name}-{revision}.hex"))
}

fn to_hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(48).map(|line| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            + "\n"
    });
    lines.collect()
}

fn from_hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Content without what is free: the place of a text in its list.
fn plain(content: &Content) -> String {
    match content {
        Content::Readings(readings) => readings
            .rows()
            .iter()
            .map(|row| plain_row(readings, row))
            .collect(),
        other => format!("{other:?}"),
    }
}

fn plain_row(readings: &Readings, row: &Row) -> String {
    match row.value_type {
        ValueType::Str => format!(
            "{:?}{:?}\n",
            Row { bits: 0, ..*row },
            readings.text(row.bits)
        ),
        _ => format!("{row:?}\n"),
    }
}

/// `GOLDEN=new cargo test -p tributary-protocol` writes files that are missing; none is changed.
#[test]
fn golden_batches_stay_as_they_are() {
    let mut decoder = Decoder::new();
    for (name, sealed) in shapes::all() {
        let newest = golden(name, REVISION);
        if !newest.exists() && std::env::var_os("GOLDEN").is_some_and(|value| value == "new") {
            std::fs::write(&newest, to_hex(sealed.bytes())).unwrap();
        }
        let content = plain(&sealed.decode(&mut decoder).unwrap());
        for revision in 1..=REVISION {
            let text = std::fs::read_to_string(golden(name, revision)).unwrap();
            let old = SealedBatch::open(from_hex(&text)).unwrap();
            assert_eq!(
                plain(&old.decode(&mut decoder).unwrap()),
                content,
                "{name} {revision}"
            );
            assert_eq!(
                (old.key(), old.kind(), old.rows()),
                (sealed.key(), sealed.kind(), sealed.rows())
            );
            assert_eq!(
                (old.covers(), old.sealed_at()),
                (sealed.covers(), sealed.sealed_at())
            );
            assert_eq!(old.series_needed(), sealed.series_needed());
            assert_eq!(old.names(), sealed.names());
            assert_eq!(old.is_shared(), sealed.is_shared());
            assert_eq!(old.numbers(), sealed.numbers());
            assert_eq!(
                (old.event_first(), old.event_last()),
                (sealed.event_first(), sealed.event_last())
            );
            if revision == REVISION {
                assert_eq!(
                    to_hex(old.bytes()),
                    to_hex(sealed.bytes()),
                    "{name}: encoding changed"
                );
            }
        }
    }
}

/// What decoding may have allocated at once: rows and scratch for them, a body, its texts.
const PEAK: usize =
    BATCH_READINGS_MAX * 160 + BODY_RAW_BYTES_MAX + BATCH_BYTES_MAX + 2 * BATCH_TEXT_BYTES_MAX;

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let length = bytes.len() as u64;
        let at = random.below(length) as usize;
        match random.below(8) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, random.next() as u8),
            2 => {
                let from = random.below(length) as usize;
                bytes[at] = bytes[from];
            }
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
            4 => bytes[at] = bytes[at].wrapping_add(random.below(3) as u8),
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
}

#[test]
fn damaged_batches_are_refused_or_decode_within_bounds() {
    let good: Vec<SealedBatch> = shapes::all()
        .into_iter()
        .map(|(_, sealed)| sealed)
        .collect();
    let mut decoder = Decoder::new();
    let mut random = Random(0xfeed);
    let (mut opened, mut decoded) = (0, 0);
    for i in 0..60_000 {
        let mut bytes = good[i % good.len()].bytes().to_vec();
        damage(&mut random, &mut bytes);
        let peak = counting::peak(|| {
            let Ok(sealed) = SealedBatch::open(bytes.into()) else {
                return;
            };
            opened += 1;
            decoded += usize::from(sealed.decode(&mut decoder).is_ok());
        });
        assert!(peak <= PEAK, "mutation {i} allocated {peak} bytes");
    }
    // The mutations reach the body: most of them leave the envelope whole.
    assert!(opened > 20_000, "{opened} opened");
    assert!(decoded > 1_000, "{decoded} decoded");
}

#[test]
fn a_batch_is_no_longer_than_allowed() {
    let long = Bytes::from(vec![0; BATCH_BYTES_MAX + 1]);
    assert_eq!(
        SealedBatch::open(long),
        Err(BatchError::TooLong(BATCH_BYTES_MAX + 1))
    );
}

/// What one batch of one reading takes beside its body: alerts are that small.
#[test]
fn the_envelope_stays_small() {
    let (name, one) = &shapes::all()[0];
    assert_eq!(*name, "one");
    let whole = one.bytes().len() + frame::HEADER_BYTES;
    assert!(whole <= 112, "{whole} bytes for one reading");
}
