//! Which windows close when, whatever the order of readings and wherever a checkpoint is.

use super::*;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;
const SLOT: SeriesSlot = SeriesSlot(3);
const DEVICE: DeviceSlot = DeviceSlot(1);

/// A device with one fast series, which is heard of as its readings come.
struct Told {
    fast: Fast,
    progress: Progress,
    time: TimeSettings,
    closed: Vec<ClosedSecond>,
}

impl Told {
    fn new() -> Self {
        let mut fast = Fast::default();
        fast.begin(SLOT, DEVICE, i64::MIN);
        Self {
            fast,
            progress: Progress {
                watermark: i64::MIN,
                newest: i64::MIN,
                newest_at: 0,
                heard: 0,
            },
            time: TimeSettings::default(),
            closed: Vec::new(),
        }
    }

    fn hear(&mut self, steady: i64, time: i64) {
        let newest = self.progress.newest.max(time);
        let newest_at = match newest == time {
            true => steady,
            false => self.progress.newest_at,
        };
        self.progress = Progress {
            newest,
            newest_at,
            watermark: newest - self.time.allowed_lateness_us,
            heard: steady,
        };
    }

    fn reading(&mut self, steady: i64, time: i64, value: f64) {
        self.hear(steady, time);
        let reading = FastReading {
            time,
            value,
            trusted: true,
            received: steady,
            skew: 7,
            unit: "mm",
        };
        let told = (&self.progress, steady, &self.time);
        self.fast.step(SLOT, &reading, told, &mut self.closed);
    }

    fn tick(&mut self, steady: i64) {
        let progress = self.progress;
        let told = (steady, &self.time);
        self.fast.tick(told, |_| Some(progress), &mut self.closed);
    }

    /// Start, count, mean and peak-to-peak of each window that closed.
    fn told(&self) -> Vec<(i64, u32, f64, Option<f64>)> {
        let told = self.closed.iter().map(|closed| {
            let second = &closed.second;
            (
                second.from,
                second.count,
                second.mean(),
                second.peak_to_peak(),
            )
        });
        told.collect()
    }

    /// Start and count of each window that closed.
    fn counts(&self) -> Vec<(i64, u32)> {
        let told = self.told().into_iter();
        told.map(|(from, count, ..)| (from, count)).collect()
    }

    /// Ticks as the log would be told, until nothing is due before this.
    fn pass_until(&mut self, steady: i64) {
        while let Some(due) = self.fast.poll_timeout()
            && due <= steady
        {
            self.tick(due);
        }
    }

    /// When the first window closes by steady time, with readings at these times, and others of
    /// the device at those.
    fn first_closes(&mut self, readings: &[i64], others: &[i64]) -> Option<i64> {
        let of = |times: &[i64], own| times.iter().map(|at| (*at, own)).collect::<Vec<_>>();
        let mut all = [of(readings, true), of(others, false)].concat();
        all.sort_unstable();
        all.push((1_000 * SECOND, false));
        for (at, own) in all {
            while let Some(due) = self.fast.poll_timeout()
                && due <= at
            {
                self.tick(due);
                if !self.closed.is_empty() {
                    return Some(due);
                }
            }
            match own {
                true => self.reading(at, at, 1.0),
                false => self.hear(at, at),
            }
            if !self.closed.is_empty() {
                return Some(at);
            }
        }
        None
    }

    fn again(&mut self) {
        let mut bytes = Vec::new();
        self.fast.write(&mut bytes, &|_| Some(("d", "m")));
        for length in 0..bytes.len() {
            let mut place = |_: &str, _: &str| Some((SLOT, DEVICE));
            assert!(Fast::read(&mut &bytes[..length], &mut place).is_err());
        }
        let mut input = bytes.as_slice();
        // Places are the process's.
        self.fast = Fast::read(&mut input, &mut |device, metric| {
            assert_eq!((device, metric), ("d", "m"));
            Some((SLOT, DEVICE))
        })
        .unwrap();
        assert!(input.is_empty());
    }
}

#[test]
fn its_state_is_as_large_as_the_documents_say() {
    assert_eq!(size_of::<Option<Second>>(), 56);
    assert_eq!(size_of::<FastSeries>(), 168);
}

#[test]
fn a_second_closes_half_a_second_after_it_is_over() {
    let mut told = Told::new();
    for tenth in 0..=15 {
        let time = tenth * SECOND / 10;
        told.reading(time, time, tenth as f64);
        assert_eq!(told.told().len(), usize::from(tenth == 15), "{tenth}");
    }
    assert_eq!(told.told(), [(0, 10, 4.5, Some(9.0))]);
    assert_eq!(&*told.closed[0].unit, "mm");
    assert_eq!(
        (told.closed[0].second.received, told.closed[0].second.skew),
        (9 * SECOND / 10, 7)
    );
    // What comes for it then is taken into the next one.
    told.reading(16 * SECOND / 10, SECOND - 1, 50.0);
    told.tick(3 * SECOND);
    assert_eq!(told.counts(), [(0, 10), (SECOND, 7)]);
    assert_eq!(told.told()[1].3, Some(40.0));
}

#[test]
fn a_window_closes_half_a_second_behind_its_end_whatever_comes_then() {
    let over = Some(3 * SECOND / 2);
    let tenths: Vec<i64> = (0..10).map(|tenth| tenth * SECOND / 10).collect();
    assert_eq!(Told::new().first_closes(&tenths, &[]), over);
    // A spike alone; its device goes on slowly, or in time.
    let slowly: Vec<i64> = (1..20).map(|i| i * 9 * SECOND / 10).collect();
    assert_eq!(Told::new().first_closes(&[0], &slowly), over);
    assert_eq!(Told::new().first_closes(&[0], &tenths), over);
    // The slowest of fast ones has its third reading just before that.
    let slowest: Vec<i64> = (0..20).map(|i| i * 749_000).collect();
    assert_eq!(Told::new().first_closes(&slowest, &[]), over);
    // However patient devices are waited for.
    let mut told = Told::new();
    told.time.idle_timeout_us = 60 * SECOND;
    told.time.allowed_lateness_us = 3_600 * SECOND;
    assert_eq!(told.first_closes(&tenths, &[]), over);
}

#[test]
fn what_is_late_of_its_device_holds_no_window_open() {
    let mut told = Told::new();
    told.reading(0, 0, 1.0);
    for tenth in 1..20 {
        told.pass_until(tenth * SECOND / 10);
        assert_eq!(told.told().len(), usize::from(tenth >= 15), "{tenth}");
        told.progress.heard = tenth * SECOND / 10;
    }
}

#[test]
fn ticks_of_many_series_are_on_one_grid() {
    let mut told = Told::new();
    let mut looks = std::collections::BTreeSet::new();
    for i in 0..1_000 {
        told.fast.forget(SLOT);
        told.fast.begin(SLOT, DEVICE, i64::MIN);
        told.reading(i * 1_717, i * 1_717, 1.0);
        let due = told.fast.poll_timeout().unwrap();
        let over = (i * 1_717).div_euclid(SECOND) * SECOND + 3 * SECOND / 2;
        assert!((over..=over + 50_000).contains(&due), "{i}");
        looks.insert(due);
    }
    assert!(looks.len() <= 3, "{looks:?}");
}

#[test]
fn a_device_that_is_slower_than_time_keeps_its_windows_open() {
    let mut told = Told::new();
    // What it kept comes at a tenth of its pace.
    for tenth in 0..1_000 {
        told.pass_until(tenth * SECOND / 10);
        told.reading(tenth * SECOND / 10, tenth * SECOND / 100, 1.0);
    }
    assert!(told.closed.iter().all(|closed| closed.second.count == 100));
    assert_eq!(told.closed.len(), 9);
}

#[test]
fn what_a_stall_held_back_is_in_the_next_window() {
    let mut told = Told::new();
    (0..4).for_each(|tenth| told.reading(tenth * SECOND / 10, tenth * SECOND / 10, 1.0));
    told.pass_until(3 * SECOND);
    assert_eq!(told.counts(), [(0, 4)]);
    for tenth in 4..40 {
        let value = if tenth == 5 { 9.0 } else { 1.0 };
        told.reading(
            3 * SECOND + tenth * SECOND / 100,
            tenth * SECOND / 10,
            value,
        );
    }
    told.pass_until(10 * SECOND);
    let counts = [(0, 4), (SECOND, 16), (2 * SECOND, 10), (3 * SECOND, 10)];
    assert_eq!(told.counts(), counts);
    assert_eq!(told.told()[1].3, Some(8.0), "with the spike");
}

#[test]
fn windows_of_before_do_not_open_again_when_a_series_comes_back() {
    let mut told = Told::new();
    told.reading(SECOND / 2, SECOND / 2, 1.0);
    told.fast.begin(SLOT, DEVICE, SECOND / 2);
    told.reading(6 * SECOND / 10, 6 * SECOND / 10, 1.0);
    told.pass_until(9 * SECOND);
    assert_eq!(told.counts(), [(SECOND, 1)]);
}

#[test]
fn whatever_its_device_no_third_window_opens_and_none_is_lost() {
    let mut told = Told::new();
    told.time.allowed_lateness_us = 3_600 * SECOND;
    for second in [3, 1, 2, 5, 4, 6, 1] {
        let reading = FastReading {
            time: second * SECOND,
            value: 1.0,
            trusted: true,
            received: 0,
            skew: 0,
            unit: "",
        };
        let told_of = (&told.progress, 0, &told.time);
        told.fast.step(SLOT, &reading, told_of, &mut told.closed);
    }
    let closed = [1, 2, 3, 4].map(|second| (second * SECOND, 1));
    assert_eq!(told.counts(), closed);
    told.tick(i64::MAX);
    let (fifth, sixth) = ((5 * SECOND, 2), (6 * SECOND, 1));
    assert_eq!(told.counts(), [&closed[..], &[fifth, sixth]].concat());
    told.reading(0, 9 * SECOND, 1.0);
    assert_ne!(told.fast.poll_timeout(), None);
    told.fast.forget(SLOT);
    assert_eq!((told.fast.count(), told.fast.poll_timeout()), (0, None));
}

proptest! {
    #[test]
    fn windows_of_a_stream_out_of_order_are_those_of_one_in_order(
        steps in proptest::collection::vec((1_i64..400_000, -8_i32..8), 1..400),
        delays in proptest::collection::vec(0_i64..=500_000, 400),
        again in proptest::collection::vec(any::<bool>(), 400),
    ) {
        let mut time = 0;
        let mut readings = Vec::new();
        for ((step, value), delay) in steps.into_iter().zip(delays) {
            time += step;
            readings.push((time, f64::from(value), delay));
        }
        let mut sorted = Told::new();
        for (time, value, _) in &readings {
            sorted.reading(*time, *time, *value);
        }
        readings.sort_by_key(|(time, _, delay)| time + delay);
        let mut shuffled = Told::new();
        for ((time, value, delay), again) in readings.iter().zip(&again) {
            shuffled.tick(time + delay);
            shuffled.reading(time + delay, *time, *value);
            if *again {
                shuffled.again();
            }
        }
        for told in [&mut sorted, &mut shuffled] {
            told.tick(time + 100 * SECOND);
            prop_assert_eq!(told.fast.poll_timeout(), None);
        }
        prop_assert_eq!(sorted.told(), shuffled.told());
        let counted: u32 = sorted.closed.iter().map(|closed| closed.second.count).sum();
        prop_assert_eq!(counted as usize, readings.len());
    }

    #[test]
    fn each_reading_is_in_one_window_and_no_window_comes_twice(
        steps in proptest::collection::vec((0_i64..900_000, -3_000_000_i64..3_000_000), 1..300),
        again in proptest::collection::vec(any::<bool>(), 300),
    ) {
        let mut told = Told::new();
        let mut steady = 0;
        for ((step, off), again) in steps.iter().zip(&again) {
            steady += step;
            told.pass_until(steady);
            told.reading(steady, steady + off, 1.0);
            if *again {
                told.again();
            }
        }
        told.pass_until(steady + 100 * SECOND);
        prop_assert_eq!(told.fast.poll_timeout(), None);
        let counts = told.counts();
        let counted: u32 = counts.iter().map(|(_, count)| count).sum();
        prop_assert_eq!(counted as usize, steps.len());
        prop_assert!(counts.is_sorted_by(|one, other| one.0 < other.0), "{:?}", counts);
    }

    #[test]
    fn no_bytes_make_one_that_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.get_mut(..4) {
            first.copy_from_slice(&[1, 0, 0, 0]);
        }
        let read = Fast::read(&mut bytes.as_slice(), &mut |_, _| Some((SLOT, DEVICE)));
        if let Ok(fast) = read {
            let mut told = Told { fast, ..Told::new() };
            told.reading(0, 0, 1.0);
            told.tick(i64::MAX);
        }
    }
}
