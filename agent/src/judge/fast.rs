//! Fast series on the gateway: when one is judged on windows of a second, and what its windows are
//! told as. Their mean goes to the series' own detector, and how far apart their readings are is a
//! series of its own, `<metric>.peak_to_peak`.

use super::Said;
use super::series::{Seen, Series, anew, note};
use super::tell::Moment;
use super::watched::At;
use crate::alert::Span;
use crate::detect::{ClosedSecond, FastMode, FastReading, Pace, Progress, Sample, SeriesSlot};
use tributary_protocol::ids::is_name;
use tributary_protocol::reading::{Flags, Meta};

/// What the name of the other series of a fast one ends with.
const PEAK_TO_PEAK: &str = ".peak_to_peak";
/// What is said of a window.
const MEAN: &str = "mean of 1 s";
const APART: &str = "over 1 s";

impl Series {
    /// Takes the pace of a reading's series; whether it is judged on windows, which begins and ends
    /// here. A detector that would be told something else from here on begins anew.
    pub(super) fn is_fast(
        &mut self,
        seen: &Seen<'_>,
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> bool {
        let Some(watch) = self.watched.watch(seen.at.series) else {
            return false;
        };
        if watch.pace.is_derived() {
            // A device's own readings go before what is made of others.
            watch.pace = Pace::default();
            watch.newest = i64::MIN;
            watch.begin_anew();
        }
        let newest = watch.newest;
        if newest != i64::MIN {
            let gap = seen.sample.event_time.saturating_sub(newest);
            watch.pace.step(gap);
        }
        let is = self.settings.fast == FastMode::Windows && watch.pace.is_fast();
        let was = self.fast.has(seen.at.series);
        if is && was && newest == i64::MIN {
            // Its device's time began anew: what is open is of another time.
            self.fast.begin(seen.at.series, seen.at.device);
        } else if is && !was {
            watch.begin_anew();
            self.counts.paces += 1;
            self.fast.begin(seen.at.series, seen.at.device);
        } else if was && !is {
            self.counts.paces += 1;
            self.leave_fast(seen.at.series, moment, said);
        }
        // There may have been no room.
        self.fast.has(seen.at.series)
    }

    /// Takes a finite reading of a fast series that is not late.
    pub(super) fn take_fast(
        &mut self,
        seen: &Seen<'_>,
        progress: &Progress,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        if let Some(watch) = self.watched.watch(seen.at.series) {
            note(watch, seen.sample.event_time);
        }
        let reading = FastReading {
            time: seen.sample.event_time,
            value: seen.sample.value,
            trusted: seen.sample.trusted,
            unit: seen.unit,
        };
        let mut closed = std::mem::take(&mut self.closed);
        let told = (progress, self.times.steady(), &self.settings.time);
        let taken = self.fast.step(seen.at.series, &reading, told, &mut closed);
        self.counts.judged += u64::from(taken);
        self.counts.late += u64::from(!taken);
        self.judge_seconds(&mut closed, moment, said);
        self.closed = closed;
    }

    /// Judges the windows that are over by steady time.
    pub(super) fn tick_fast(&mut self, steady: i64, moment: Moment, said: &mut Vec<Said>) {
        let mut closed = std::mem::take(&mut self.closed);
        let times = &self.times;
        self.fast.tick(
            (steady, &self.settings.time),
            |device| times.progress(device),
            &mut closed,
        );
        self.judge_seconds(&mut closed, moment, said);
        self.closed = closed;
    }

    fn judge_seconds(
        &mut self,
        closed: &mut Vec<ClosedSecond>,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        for closed in closed.drain(..) {
            let at = At {
                series: closed.series,
                device: closed.device,
            };
            // Its series may have given way to the other one of a series before it.
            let names = self.watched.names(at.series);
            let Some((device, metric)) = names.filter(|_| self.fast.has(at.series)) else {
                continue;
            };
            let (device, metric) = (device.to_owned(), metric.to_owned());
            self.counts.seconds += 1;
            let mean = (closed.second.mean(), MEAN);
            let seen = seen(&closed, (at, &device, &metric), mean, moment);
            if let Some(watch) = self.watched.watch(at.series) {
                watch.recent.push(closed.after, mean.0);
            }
            self.judge_second(&seen, moment, said);
            let Some(apart) = closed.second.peak_to_peak() else {
                continue;
            };
            let other = format!("{metric}{PEAK_TO_PEAK}");
            if let Some(at) = self.place_of_derived(&device, &other, moment, said) {
                let seen = self::seen(&closed, (at, &device, &other), (apart, APART), moment);
                let second = &closed.second;
                if let Some(watch) = self.watched.watch(at.series)
                    && let Some(step) = note(anew(watch, second.from), second.from)
                {
                    watch.recent.push(step, apart);
                }
                self.judge_second(&seen, moment, said);
            }
        }
    }

    fn judge_second(&mut self, seen: &Seen<'_>, moment: Moment, said: &mut Vec<Said>) {
        if seen.sample.value.is_finite() {
            self.ask(seen, 0, moment, said);
        } else {
            // What it was summed up from is beyond what a double holds.
            self.counts.not_finite += 1;
        }
    }

    /// Where the other series of a fast one stands; `None` when its device has one of that name.
    fn place_of_derived(
        &mut self,
        device: &str,
        metric: &str,
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> Option<At> {
        if !is_name(metric) {
            return None;
        }
        let is_new = self.watched.series(device, metric).is_none();
        let at = self.place_of(device, metric, moment, said);
        let watch = self.watched.watch(at.series)?;
        if is_new {
            watch.pace = Pace::derived();
        }
        watch.pace.is_derived().then_some(at)
    }

    /// A series is judged reading by reading from here on. Its open windows are dropped, and the
    /// alert of its other series, which says nothing more, is over.
    fn leave_fast(&mut self, slot: SeriesSlot, moment: Moment, said: &mut Vec<Said>) {
        self.fast.forget(slot);
        if let Some(watch) = self.watched.watch(slot) {
            watch.begin_anew();
        }
        let Some((device, metric)) = self.watched.names(slot) else {
            return;
        };
        let (device, metric) = (device.to_owned(), metric.to_owned());
        let other = format!("{metric}{PEAK_TO_PEAK}");
        let Some((series, of_device)) = self.watched.series(&device, &other) else {
            return;
        };
        let Some(watch) = self.watched.watch(series) else {
            return;
        };
        if !watch.pace.is_derived() {
            return;
        }
        watch.begin_anew();
        if std::mem::take(&mut watch.alerted) {
            let at = At {
                series,
                device: of_device,
            };
            let time = moment.received;
            let seen = Seen {
                at,
                device: &device,
                metric: &other,
                unit: "",
                meta: Meta {
                    event_time: time,
                    received_time: time,
                    ..Meta::default()
                },
                sample: Sample {
                    event_time: time,
                    received_time: time,
                    value: f64::NAN,
                    late: false,
                    trusted: false,
                },
                window: None,
            };
            let text = format!("{device} {metric} is judged reading by reading from here on");
            self.clear(&seen, &text, moment, said);
        }
    }

    /// Other settings say how fast series are judged: what their detectors know is of no use.
    pub(super) fn end_fast(&mut self, moment: Moment, said: &mut Vec<Said>) {
        for slot in self.fast.slots() {
            self.leave_fast(slot, moment, said);
        }
    }
}

/// A window as a value that is judged.
fn seen<'a>(
    closed: &'a ClosedSecond,
    (at, device, metric): (At, &'a str, &'a str),
    (value, of): (f64, &'static str),
    moment: Moment,
) -> Seen<'a> {
    let second = &closed.second;
    let span = Span {
        from: second.from,
        to: second.to(),
    };
    let flags = match second.trusted {
        true => Flags::default(),
        false => Flags::CLOCK_SUSPECT,
    };
    Seen {
        at,
        device,
        metric,
        unit: &closed.unit,
        meta: Meta {
            event_time: second.from,
            received_time: moment.received,
            flags,
            ..Meta::default()
        },
        sample: Sample {
            event_time: second.from,
            received_time: moment.received,
            value,
            late: false,
            trusted: second.trusted,
        },
        window: Some((span, of)),
    }
}
