//! What a flush decides: which rows lie in which file, in which order, and when it ends.

use crate::made::{EPOCH_US, FiveNames, HOUR_US, origin};
use proptest::prelude::*;
use std::collections::BTreeSet;
use tributary_aggregator::lake::load::{Content, FlushPlan, Load, Offer};
use tributary_aggregator::limits::FLUSH_PARTITIONS_MAX;
use tributary_protocol::ids::SeriesId;
use tributary_protocol::reading::*;

/// (hour, micros within it, series, clock suspect)
type MadeRow = (i64, i64, u8, bool);

fn content(rows: &[MadeRow]) -> Content {
    let mut readings = Readings::new();
    for (hour, micros, series, suspect) in rows {
        let flags = if *suspect {
            Flags::CLOCK_SUSPECT
        } else {
            Flags::default()
        };
        let event_time = EPOCH_US + hour * HOUR_US + micros;
        let meta = Meta {
            event_time,
            received_time: EPOCH_US,
            flags,
            ..Meta::default()
        };
        let value = match series {
            0 => Value::F64(0.5),
            1 => Value::F32(0.5),
            2 => Value::I64(5),
            3 => Value::Bool(true),
            _ => Value::Str("five"),
        };
        readings
            .push(SeriesId(u32::from(*series)), meta, value)
            .unwrap();
    }
    Content::Readings(readings)
}

/// Flushes of these batches, as the sink makes them.
fn flushes(batches: &[Vec<MadeRow>]) -> Vec<FlushPlan> {
    let mut plans = Vec::new();
    let mut load = Load::new(0);
    for (entry, rows) in batches.iter().enumerate() {
        let (source, rows) = (origin(entry as u64), content(rows));
        if let Offer::Full(back) = load.offer(source, rows, &FiveNames) {
            let next = Load::new(load.end());
            plans.push(std::mem::replace(&mut load, next).plan());
            assert_eq!(load.offer(back.0, back.1, &FiveNames), Offer::Taken);
        }
    }
    plans.push(load.plan());
    plans
}

fn made_batches() -> impl Strategy<Value = Vec<Vec<MadeRow>>> {
    let row = (0_i64..70, 0_i64..1_000, 0_u8..5, prop::bool::weighted(0.1));
    prop::collection::vec(prop::collection::vec(row, 0..80), 1..12)
}

proptest! {
    #[test]
    fn every_row_lies_in_exactly_one_file_in_order(batches in made_batches()) {
        let plans = flushes(&batches);
        let mut seen = BTreeSet::new();
        let mut at = 0;
        for plan in &plans {
            prop_assert_eq!(plan.first(), at, "flushes follow each other");
            at = plan.end();
            prop_assert!(plan.parts().len() <= FLUSH_PARTITIONS_MAX);
            let mut batches_counted = 0;
            for part in plan.parts() {
                let mut last = None;
                for row in plan.rows(part) {
                    let entry = row.batch.origin.entry;
                    prop_assert!(seen.insert((entry, row.row)), "a row twice");
                    let here = (row.series, row.reading.meta.event_time, entry, row.row);
                    prop_assert!(last < Some(here), "out of order");
                    last = Some(here);
                }
                batches_counted += plan.sums_of(part).values().map(|sum| sum.batches).sum::<u64>();
            }
            let with_rows = (plan.first()..plan.end())
                .filter(|entry| !batches[*entry as usize].is_empty())
                .count();
            prop_assert_eq!(batches_counted, with_rows as u64);
        }
        prop_assert_eq!(at, batches.len() as u64);
        prop_assert_eq!(seen.len(), batches.iter().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn a_batch_beyond_the_partitions_ends_the_flush_before_it() {
    let hours = |from: i64, to: i64| (from..to).map(|hour| (hour, 0, 0, false)).collect();
    let plans = flushes(&[hours(0, 30), hours(20, 48), hours(47, 50), hours(0, 5)]);
    let ends: Vec<_> = plans
        .iter()
        .map(|plan| (plan.first(), plan.end()))
        .collect();
    assert_eq!(ends, [(0, 2), (2, 4)]);
    assert_eq!(plans[0].parts().len(), 48);
}

#[test]
fn a_batch_with_an_unknown_series_is_kept_apart_whole() {
    let mut readings = Readings::new();
    readings
        .push(SeriesId(0), Meta::default(), Value::F64(1.0))
        .unwrap();
    readings
        .push(SeriesId(77), Meta::default(), Value::F64(1.0))
        .unwrap();
    let mut load = Load::new(0);
    load.take(origin(0), Content::Readings(readings), &FiveNames);
    load.take(origin(1), content(&[(0, 0, 0, false)]), &FiveNames);
    let plan = load.plan();
    assert_eq!(plan.refused().len(), 1);
    assert!(plan.refused()[0].1.contains("series 77"));
    assert_eq!(plan.parts().len(), 1);
    assert_eq!(plan.rows(&plan.parts()[0]).count(), 1);
}

#[test]
fn a_flush_of_many_lanes_and_refusals_has_markers_that_can_be_read_again() {
    use tributary_aggregator::lake::file::LaneSum;
    use tributary_aggregator::limits::{FLUSH_REFUSED_MAX, MARKER_BYTES_MAX};
    use tributary_protocol::ids::{AgentId, AgentUuid, BufferId};
    for refused in [false, true] {
        let mut load = Load::new(0);
        while !load.is_due() {
            let mut source = origin(load.end());
            let life = u128::from(load.end()).to_be_bytes();
            // The longest name that JSON makes yet longer.
            source.agent = AgentId::new(&"\"".repeat(256), AgentUuid(life)).unwrap();
            source.key.buffer = BufferId(life);
            let content = if refused {
                source.agent = origin(0).agent;
                let reason = "made so".to_owned();
                Content::Refused { reason }
            } else {
                Content::Definitions
            };
            load.take(source, content, &FiveNames);
        }
        let plan = load.plan();
        let lanes = LaneSum::all(plan.sums());
        let bytes = serde_json::to_vec(&lanes).unwrap().len() as u64;
        assert!(lanes.len() > 1_000, "too few to be worth a flush");
        assert!(bytes <= MARKER_BYTES_MAX - 4096, "{bytes}");
        assert!(plan.refused().len() <= FLUSH_REFUSED_MAX);
    }
}
