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
        fast.begin(SLOT, DEVICE);
        Self {
            fast,
            progress: Progress {
                watermark: i64::MIN,
                newest: i64::MIN,
                heard: 0,
            },
            time: TimeSettings::default(),
            closed: Vec::new(),
        }
    }

    fn hear(&mut self, steady: i64, time: i64) {
        let newest = self.progress.newest.max(time);
        self.progress = Progress {
            newest,
            watermark: newest - self.time.allowed_lateness_us,
            heard: steady,
        };
    }

    fn reading(&mut self, steady: i64, time: i64, value: f64) -> bool {
        self.hear(steady, time);
        let reading = FastReading {
            time,
            value,
            trusted: true,
            unit: "mm",
        };
        let told = (&self.progress, steady, &self.time);
        self.fast.step(SLOT, &reading, told, &mut self.closed)
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
    assert_eq!(size_of::<Option<Second>>(), 40);
    assert_eq!(size_of::<FastSeries>(), 136);
}

#[test]
fn a_second_closes_half_a_second_after_it_is_over() {
    let mut told = Told::new();
    for tenth in 0..=15 {
        let time = tenth * SECOND / 10;
        assert!(told.reading(time, time, tenth as f64));
        assert_eq!(told.told().len(), usize::from(tenth == 15), "{tenth}");
    }
    assert_eq!(told.told(), [(0, 10, 4.5, Some(9.0))]);
    assert_eq!(&*told.closed[0].unit, "mm");
    // What comes for it then is late.
    assert!(!told.reading(16 * SECOND / 10, SECOND - 1, 0.0));
    assert!(told.reading(16 * SECOND / 10, SECOND, 0.0));
}

#[test]
fn silence_closes_what_is_open_within_two_seconds_of_the_last_reading() {
    let mut told = Told::new();
    for tenth in 0..9 {
        told.reading(tenth * SECOND / 10, tenth * SECOND / 10, 1.0);
    }
    let heard = told.progress.heard;
    let mut looked = Vec::new();
    while let Some(at) = told.fast.poll_timeout() {
        assert!(at > *looked.last().unwrap_or(&heard), "{looked:?}");
        looked.push(at);
        told.tick(at - 1);
        assert_eq!(told.told(), []);
        told.tick(at);
        if at < heard + 2 * SECOND {
            assert_eq!(told.told(), []);
        }
    }
    assert_eq!(*looked.last().unwrap(), heard + 2 * SECOND);
    assert!(looked.len() <= 2);
    assert_eq!(told.told(), [(0, 9, 1.0, Some(0.0))]);
    assert!(!told.reading(heard + 3 * SECOND, SECOND - 1, 0.0));
}

#[test]
fn one_of_two_series_that_falls_silent_is_judged_although_its_device_goes_on() {
    let mut told = Told::new();
    told.reading(0, 0, 1.0);
    for second in 1..4 {
        told.hear(second * SECOND, second * SECOND);
        told.tick(second * SECOND);
    }
    assert_eq!(told.told(), [(0, 1, 1.0, None)]);
    assert_eq!(told.fast.poll_timeout(), None);
}

#[test]
fn a_device_that_is_slower_than_time_keeps_its_windows_open() {
    let mut told = Told::new();
    // What it kept comes at a tenth of its pace.
    for tenth in 0..100 {
        told.tick(tenth * SECOND);
        assert!(told.reading(tenth * SECOND, tenth * SECOND / 10, 1.0));
    }
    assert!(told.closed.iter().all(|closed| closed.second.count == 10));
    assert_eq!(told.closed.len(), 9);
}

#[test]
fn whatever_its_device_no_third_window_opens() {
    let mut told = Told::new();
    told.time.allowed_lateness_us = 3_600 * SECOND;
    for second in [3, 1, 2, 5, 4, 6] {
        told.progress.watermark = i64::MIN;
        let reading = FastReading {
            time: second * SECOND,
            value: 1.0,
            trusted: true,
            unit: "",
        };
        let told_of = (
            &Progress {
                watermark: i64::MIN,
                newest: i64::MIN,
                heard: 0,
            },
            0,
            &told.time,
        );
        told.fast.step(SLOT, &reading, told_of, &mut told.closed);
    }
    assert!(told.closed.len() >= 2);
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
            prop_assert!(sorted.reading(*time, *time, *value));
        }
        readings.sort_by_key(|(time, _, delay)| time + delay);
        let mut shuffled = Told::new();
        for ((time, value, delay), again) in readings.iter().zip(&again) {
            shuffled.tick(time + delay);
            prop_assert!(shuffled.reading(time + delay, *time, *value));
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
