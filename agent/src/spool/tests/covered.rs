//! Batches that a gap without readings stands for, since the aggregator holds their messages under
//! another buffer: what a full spool does with them, and what is found again.

use super::giving_way::{FIRST, Found, SECOND, batches, key, open, tight};
use super::*;
use crate::spool::{self, Policy};
use tributary_protocol::batch::{Cover, GapReason};

fn replaced(opened: &mut Opened, number: u64) {
    let key = key(FIRST, number);
    assert!(opened.reader.replace(key, Vec::new()));
    let (asked, _) = opened.writer.next_covered().unwrap();
    assert_eq!(asked, key);
    assert!(!opened.writer.tell_again(asked));
    let batch = opened.writer.read_covered(asked).unwrap();
    opened.writer.declare_repeat(&batch).unwrap();
}

/// What it told of, number by number.
fn told(opened: &mut Opened) -> Vec<u64> {
    let sheds = opened.reader.take_sheds().into_iter();
    sheds.flat_map(|shed| shed.numbers).collect()
}

#[test]
fn what_is_replaced_is_no_loss_also_where_its_segment_gives_way() {
    let disk = SimDisk::new(7);
    let config = tight(Policy::DropOldest);
    let mut opened = open(&disk, FIRST, &config);
    let batches = batches(FIRST, 40);
    for batch in &batches[..8] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    replaced(&mut opened, 3);
    assert_eq!(told(&mut opened), [3]);
    let gap = opened.reader.read(key(FIRST, 3)).unwrap();
    assert_eq!(gap.gap().unwrap().reason, GapReason::Repeat);
    assert_eq!(gap.covers(), batches[3].covers());
    // Asked once more, it tells once more.
    assert!(opened.writer.tell_again(key(FIRST, 3)));
    assert_eq!(told(&mut opened), [3]);
    for batch in &batches[8..] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let given_up = told(&mut opened);
    assert!(given_up.starts_with(&[0, 1, 2, 4, 5]), "{given_up:?}");
    drop(opened);
    let mut opened = open(&disk, SECOND, &config);
    let found = Found::of(&mut opened.reader, FIRST);
    for number in given_up {
        let rows = batches[number as usize].rows();
        assert_eq!(found.declared[&number], Some(rows), "{number}");
    }
    assert_eq!(found.declared[&3], Some(0));
    assert_eq!(found.delivered.len() + found.declared.len(), 40);
}

/// A batch that was sealed again covers messages of long ago, and is the newest.
#[test]
fn what_is_sealed_again_takes_nothing_back_of_what_is_covered() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(8));
    let dir = Path::new("/spool");
    let mut opened = spool::open(&disk, dir, FIRST, &config(64)).unwrap();
    let cover = |buffer, first, count| Cover {
        buffer,
        first,
        count,
    };
    let marker = cover(FIRST, 40, 0);
    for (number, covers) in [
        vec![cover(FIRST, 0, 40)],
        vec![cover(BufferId([0; 16]), 5, 2), marker],
    ]
    .into_iter()
    .enumerate()
    {
        let spec = Spec {
            key: key(FIRST, number as u64),
            sealed_at: 1,
            series_needed: 1,
            covers,
        };
        let mut readings = Readings::new();
        let value = Value::Bool(true);
        readings.push(SeriesId(0), Meta::default(), value).unwrap();
        let sealed = Sealer::new().readings(&spec, &mut readings).unwrap();
        opened.writer.append(vec![sealed]).unwrap();
    }
    drop(opened);
    let opened = spool::open(&disk, dir, SECOND, &config(64)).unwrap();
    assert_eq!(opened.covered.least(), Some(Origin::behind(&marker)));
}

#[test]
fn no_more_wait_to_be_replaced_than_are_kept() {
    let disk = SimDisk::new(9);
    let mut opened = open(&disk, FIRST, &tight(Policy::Block));
    let most = crate::limits::COVERED_MAX as u64;
    for number in 0..most {
        assert!(opened.reader.replace(key(FIRST, number), Vec::new()));
    }
    assert!(!opened.reader.replace(key(FIRST, most), Vec::new()));
    assert!(opened.reader.replace(key(FIRST, 0), Vec::new()), "again");
    // What is not there can't be replaced, and ends nothing.
    let (asked, _) = opened.writer.next_covered().unwrap();
    assert!(opened.writer.read_covered(asked).is_err());
}
