//! Fast series on the gateway: when one is judged on windows of a second, and what its windows are
//! told as. Their mean goes to the series' own detector, and how far apart their readings are is a
//! series of its own, `<metric>.peak_to_peak`.

use super::Said;
use super::recent::Recent;
use super::series::{Seen, Series, anew, note};
use super::tell::Moment;
use super::watched::{At, Watch};
use crate::alert::Span;
use crate::detect::{ClosedSecond, FastMode, FastReading, Pace, Progress, Sample, SeriesSlot};
use crate::limits::FAST_ALONE_MAX;
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
        let At { series, device } = seen.at;
        self.make_own(series);
        let Some(watch) = self.watched.watch(series) else {
            return false;
        };
        let newest = watch.newest;
        if newest != i64::MIN {
            let gap = seen.sample.event_time.saturating_sub(newest);
            watch.pace.step(gap);
        }
        let may = self.settings.fast == FastMode::Windows && watch.pace.is_fast();
        let was = watch.pace.is_on_windows();
        if may && (newest == i64::MIN || !self.fast.has(series)) {
            // It is new, or comes back; or its device's time began anew, and what is open is of
            // another one.
            let judged = if was { newest } else { i64::MIN };
            self.fast.begin(series, device, judged);
            self.readings.forget(series);
            if was {
                watch.recent = Recent::default();
            }
        }
        // There may have been no room.
        let is = may && self.fast.has(series);
        if is != was {
            self.counts.paces += 1;
            match is {
                true => {
                    watch.pace.set_on_windows(true);
                    watch.begin_anew();
                }
                false => self.leave_fast(seen.at, moment, said),
            }
        }
        is
    }

    /// A device's own readings go before what is made of others.
    fn make_own(&mut self, series: SeriesSlot) {
        let watch = self.watched.watch(series);
        if watch.is_some_and(|watch| watch.pace.is_derived()) {
            self.watched.own(series);
            if let Some(watch) = self.watched.watch(series) {
                watch.newest = i64::MIN;
                watch.begin_anew();
            }
        }
    }

    /// Takes a finite reading of a fast series that is not late.
    pub(super) fn take_fast(
        &mut self,
        seen: &Seen<'_>,
        progress: &Progress,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        let watch = self.watched.watch(seen.at.series);
        if let Some(step) = watch.and_then(|watch| note(watch, seen.sample.event_time)) {
            self.keep_reading(seen, step);
        }
        let reading = FastReading {
            time: seen.sample.event_time,
            value: seen.sample.value,
            trusted: seen.sample.trusted,
            received: seen.meta.received_time,
            skew: seen.meta.event_time.saturating_sub(seen.sample.event_time),
            unit: seen.unit,
        };
        let mut closed = std::mem::take(&mut self.closed);
        let told = (progress, self.times.steady(), &self.settings.time);
        self.fast.step(seen.at.series, &reading, told, &mut closed);
        self.counts.judged += 1;
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
            let names = self.watched.names(at.series);
            let Some((device, metric)) = names.filter(|_| self.fast.has(at.series)) else {
                continue;
            };
            let (device, metric) = (device.to_owned(), metric.to_owned());
            let second = &closed.second;
            let moment = Moment {
                skew: second.skew,
                ..moment
            };
            self.counts.seconds += 1;
            let mean = (second.mean(), MEAN);
            let seen = seen(&closed, (at, &device, &metric), mean);
            if let Some(watch) = self.watched.watch(at.series) {
                push(watch, closed.after, mean.0);
            }
            self.judge_second(&seen, moment, said);
            if let Some(apart) = second.peak_to_peak() {
                self.judge_apart(&closed, (&seen, apart), moment, said);
            } else if closed.alone == FAST_ALONE_MAX {
                let text = format!(
                    "{device} {metric} had one reading a second for {FAST_ALONE_MAX} seconds"
                );
                self.end_apart(&seen, &text, moment, said);
            }
        }
    }

    /// Judges how far the readings of a window are apart.
    fn judge_apart(
        &mut self,
        closed: &ClosedSecond,
        (of, apart): (&Seen<'_>, f64),
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        let other = format!("{}{PEAK_TO_PEAK}", of.metric);
        let Some(at) = self.place_of_derived((of.device, &other), moment, said) else {
            return;
        };
        let from = closed.second.from;
        if let Some(watch) = self.watched.watch(at.series)
            && let Some(step) = note(anew(watch, from), from)
        {
            push(watch, step, apart);
        }
        let seen = seen(closed, (at, of.device, &other), (apart, APART));
        self.judge_second(&seen, moment, said);
    }

    fn judge_second(&mut self, seen: &Seen<'_>, moment: Moment, said: &mut Vec<Said>) {
        if seen.sample.value.is_finite() {
            self.ask(seen, 0, moment, said);
        } else {
            // What it was summed up from is beyond what a double holds.
            self.counts.not_finite += 1;
        }
    }

    /// Where the other series of a fast one stands. `None` when its device has one of that name, or
    /// when there is no room: nothing gives way to it.
    fn place_of_derived(
        &mut self,
        (device, metric): (&str, &str),
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> Option<At> {
        if !is_name(metric) {
            return None;
        }
        if let Some((series, _)) = self.watched.series(device, metric) {
            let is_derived = self.watched.watch(series)?.pace.is_derived();
            return is_derived.then(|| self.watched.touch(device, metric))?;
        }
        if self.watched.is_full() {
            self.counts.crowded += 1;
            return None;
        }
        let known = self.take_back((device, metric), moment, said);
        let mut watch = known.unwrap_or_else(|| Watch::new(self.settings.preset));
        if watch.newest == i64::MIN {
            // Nothing is known of it, not even that it is its device's.
            watch.pace = Pace::derived();
        }
        let is_derived = watch.pace.is_derived();
        let at = self.watched.add(device, metric, watch);
        is_derived.then_some(at)
    }

    /// A series is judged reading by reading from here on; its open windows are dropped.
    fn leave_fast(&mut self, at: At, moment: Moment, said: &mut Vec<Said>) {
        self.fast.forget(at.series);
        self.readings.forget(at.series);
        if let Some(watch) = self.watched.watch(at.series) {
            watch.pace.set_on_windows(false);
            watch.begin_anew();
        }
        let Some((device, metric)) = self.watched.names(at.series) else {
            return;
        };
        let (device, metric) = (device.to_owned(), metric.to_owned());
        let text = format!("{device} {metric} is judged reading by reading from here on");
        let seen = said_at(at, (&device, &metric), moment.received);
        self.end_apart(&seen, &text, moment, said);
    }

    /// Nothing more is said of how far the readings of a series are apart: an alert about it is
    /// over. Where it gave way its alert is, too.
    fn end_apart(&mut self, of: &Seen<'_>, text: &str, moment: Moment, said: &mut Vec<Said>) {
        let other = format!("{}{PEAK_TO_PEAK}", of.metric);
        let Some((series, device)) = self.watched.series(of.device, &other) else {
            return;
        };
        let watch = self.watched.watch(series);
        let Some(watch) = watch.filter(|watch| watch.pace.is_derived()) else {
            return;
        };
        watch.begin_anew();
        watch.alerted = false;
        let at = At { series, device };
        let seen = said_at(at, (of.device, &other), moment.received);
        self.clear(&seen, text, moment, said);
    }

    /// Other settings say how fast series are judged: what their detectors know is of no use.
    pub(super) fn end_fast(&mut self, moment: Moment, said: &mut Vec<Said>) {
        for series in self.fast.slots() {
            let names = self.watched.names(series);
            let of_names = names.and_then(|(device, _)| self.watched.device(device));
            if let Some(device) = of_names {
                self.leave_fast(At { series, device }, moment, said);
            }
        }
    }
}

/// Keeps a value to show around an alert. One that is beyond what a double holds can't be shown,
/// and nor can what was before it, whose times would be wrong.
fn push(watch: &mut Watch, step: i64, value: f64) {
    match value.is_finite() {
        true => watch.recent.push(step, value),
        false => watch.recent = Recent::default(),
    }
}

/// Of a series, without a value, at this time.
fn said_at<'a>(at: At, (device, metric): (&'a str, &'a str), time: i64) -> Seen<'a> {
    Seen {
        at,
        device,
        metric,
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
    }
}

/// A window as a value that is judged.
fn seen<'a>(
    closed: &'a ClosedSecond,
    (at, device, metric): (At, &'a str, &'a str),
    (value, of): (f64, &'static str),
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
            received_time: second.received,
            flags,
            ..Meta::default()
        },
        sample: Sample {
            event_time: second.from,
            received_time: second.received,
            value,
            late: false,
            trusted: second.trusted,
        },
        window: Some((span, of)),
    }
}
