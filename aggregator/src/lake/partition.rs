//! Which hour a row lies in, and how few partitions a flush may touch. Pure; no file names beyond
//! the two directory levels.
//!
//! A row lies under its event time. Three kinds of rows do not, so that a reader filters by
//! `event_time` and takes `event_date` and `event_hour` for what they are, a place:
//! rows whose clock is suspect lie under their received time; rows that neither time can place
//! (both outside [1970, 2100)) under 1970-01-01; and when one batch alone spans more than
//! [`FLUSH_PARTITIONS_MAX`] hours, its smallest hours lie together under the latest received hour,
//! because a file for each would hold a handful of rows.

use crate::limits::FLUSH_PARTITIONS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tributary_protocol::reading::{Flags, Meta};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
/// 2100-01-01T00:00:00Z in microseconds since 1970.
const YEAR_2100_US: i64 = 4_102_444_800_000_000;

/// An hour since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour that holds this time; 1970-01-01T00 for a time outside [1970, 2100).
    pub fn of(micros: i64) -> Self {
        if believable(micros) {
            Self(micros.div_euclid(MICROS_PER_HOUR))
        } else {
            Self(0)
        }
    }

    /// Year, month, day (civil_from_days, Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms").
    fn date(self) -> (i64, i64, i64) {
        let days = self.0.div_euclid(24) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month, day)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let hour = self.0.rem_euclid(24);
        write!(
            f,
            "event_date={year:04}-{month:02}-{day:02}/event_hour={hour:02}"
        )
    }
}

fn believable(micros: i64) -> bool {
    (0..YEAR_2100_US).contains(&micros)
}

/// The hour of one row, by its own times alone.
pub fn hour_of(meta: &Meta) -> Hour {
    if meta.flags.has(Flags::CLOCK_SUSPECT) || !believable(meta.event_time) {
        Hour::of(meta.received_time)
    } else {
        Hour::of(meta.event_time)
    }
}

/// Where the rows of one batch go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The hours that have rows.
    hours: BTreeSet<Hour>,
    /// Where rows go whose hour is not among `hours`.
    rest: Hour,
}

impl Placement {
    /// The placement of a batch with these rows: never more than [`FLUSH_PARTITIONS_MAX`] hours.
    pub fn of<'a>(rows: impl Iterator<Item = &'a Meta>) -> Self {
        let mut counts: BTreeMap<Hour, u32> = BTreeMap::new();
        let mut rest = Hour::default();
        for meta in rows {
            *counts.entry(hour_of(meta)).or_default() += 1;
            rest = rest.max(Hour::of(meta.received_time));
        }
        if counts.len() <= FLUSH_PARTITIONS_MAX {
            return Self {
                hours: counts.into_keys().collect(),
                rest,
            };
        }
        let mut by_size: Vec<(Hour, u32)> = counts.into_iter().collect();
        // Stable: of equal sizes the earlier hour stays.
        by_size.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        let kept = by_size
            .into_iter()
            .take(FLUSH_PARTITIONS_MAX - 1)
            .map(|(hour, _)| hour);
        let mut hours: BTreeSet<Hour> = kept.collect();
        hours.insert(rest);
        Self { hours, rest }
    }

    /// The hours that have rows.
    pub fn hours(&self) -> &BTreeSet<Hour> {
        &self.hours
    }

    /// The hour under which this row of the batch lies.
    pub fn place(&self, meta: &Meta) -> Hour {
        let hour = hour_of(meta);
        if self.hours.contains(&hour) {
            hour
        } else {
            self.rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(event_time: i64, received_time: i64, flags: Flags) -> Meta {
        Meta {
            event_time,
            received_time,
            flags,
            ..Meta::default()
        }
    }

    #[test]
    fn hours_are_written_as_dates() {
        let cases = [
            (0, "event_date=1970-01-01/event_hour=00"),
            (951_782_400_000_000, "event_date=2000-02-29/event_hour=00"),
            (1_795_205_535_000_000, "event_date=2026-11-20/event_hour=20"),
            (YEAR_2100_US - 1, "event_date=2099-12-31/event_hour=23"),
            (YEAR_2100_US, "event_date=1970-01-01/event_hour=00"),
            (-1, "event_date=1970-01-01/event_hour=00"),
        ];
        for (micros, text) in cases {
            assert_eq!(Hour::of(micros).to_string(), text);
        }
    }

    #[test]
    fn a_suspect_clock_is_not_believed() {
        let received = 1_795_205_535_000_000;
        let suspect = meta(5, received, Flags::CLOCK_SUSPECT);
        assert_eq!(hour_of(&suspect), Hour::of(received));
        assert_eq!(
            hour_of(&meta(i64::MIN, received, Flags::default())),
            Hour::of(received)
        );
        assert_eq!(
            hour_of(&meta(i64::MAX, i64::MAX, Flags::default())),
            Hour(0)
        );
    }

    proptest! {
        #[test]
        fn a_batch_never_touches_too_many_partitions(
            times in prop::collection::vec((0_i64..400, 0_i64..60, any::<bool>()), 1..600)
        ) {
            let metas: Vec<Meta> = times
                .iter()
                .map(|(event, received, suspect)| {
                    let flags = if *suspect { Flags::CLOCK_SUSPECT } else { Flags::default() };
                    meta(event * MICROS_PER_HOUR, received * MICROS_PER_HOUR, flags)
                })
                .collect();
            let placement = Placement::of(metas.iter());
            prop_assert!(placement.hours().len() <= FLUSH_PARTITIONS_MAX);
            let distinct: BTreeSet<Hour> = metas.iter().map(hour_of).collect();
            for meta in &metas {
                let place = placement.place(meta);
                prop_assert!(placement.hours().contains(&place));
                if distinct.len() <= FLUSH_PARTITIONS_MAX {
                    prop_assert_eq!(place, hour_of(meta));
                }
            }
        }
    }
}
