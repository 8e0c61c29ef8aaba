//! Series that give way to others, what is kept of them, and how they come back.

use super::Said;
use super::idle::Forgotten;
use super::kept::{read_text, write_text};
use super::series::Series;
use super::tell::{self, Moment};
use super::watched::{At, Gone, Watch};
use crate::detect::Place;

/// Of a row: another number with each change of what a [`Watch`] writes.
const ROW_VERSION: u8 = 1;

impl Series {
    /// Where a series stands; one that is new may take the place of another. `None` where too many
    /// did lately: nothing is judged of it. `of` is the metric of the readings that it says.
    pub(super) fn place_of(
        &mut self,
        (device, metric): (&str, &str),
        of: &str,
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> Option<At> {
        if let Some(at) = self.watched.touch(device, metric) {
            return Some(at);
        }
        if self.watched.is_full() && !self.has_turn(device, of) {
            self.counts.no_turn += 1;
            return None;
        }
        let known = self.take_back((device, metric), moment, said);
        if let Some(gone) = self.watched.make_room(device) {
            self.give_way(&gone, moment, said);
        }
        let watch = known.unwrap_or_else(|| Watch::new(self.settings.preset));
        Some(self.watched.add(device, metric, watch))
    }

    /// Whether another one may give way. What leaves as aggregates alone needs no turn: without a
    /// place in windows it would reach nobody.
    fn has_turn(&mut self, device: &str, metric: &str) -> bool {
        let is_own = self.watched.has_share(device);
        self.forward.holds_back(device, metric) || self.turns.take(self.times.steady(), is_own)
    }

    /// A series gives way. What was learned of it is kept, and so does its alert stand, if there is
    /// room; its windows close, and they and rules begin anew.
    pub(super) fn give_way(&mut self, gone: &Gone, moment: Moment, said: &mut Vec<Said>) {
        let Gone {
            at, device, metric, ..
        } = gone;
        self.windows.close(at.series, &mut self.aggregates);
        self.take_aggregates(Some((device, metric)), moment);
        self.windows.forget(at.series);
        self.units.forget(at.series);
        self.fast.forget(at.series);
        self.readings.forget(at.series);
        let place = Place {
            series: at.series,
            device: at.device,
            device_name: device,
            metric,
            unit: "",
        };
        self.rules.forget(&place);
        self.vibration.forget(&place);
        self.groups.forget(&place);
        if gone.device_gone {
            self.times.forget(at.device);
            let mut states = std::mem::take(&mut self.states);
            self.groups
                .forget_device(device, moment.received, &mut states);
            self.tell_states(&mut states, moment, said);
            self.states = states;
        }
        if self.keep(gone, moment, said) {
            self.counts.gave_way += 1;
            return;
        }
        self.counts.forgotten += 1;
        if gone.watch.alerted {
            self.tell_forgotten((device, metric), moment.origin, said);
        }
    }

    fn keep(&mut self, gone: &Gone, moment: Moment, said: &mut Vec<Said>) -> bool {
        let Gone {
            device,
            metric,
            watch,
            ..
        } = gone;
        // What windows of another series say never takes a place again that it gave up.
        if watch.pace.is_derived() {
            return false;
        }
        // What a device has beyond its share is kept where it costs nobody else anything.
        let is_beyond = gone.to_its_own && self.idle.len() >= self.idle.most() / 2;
        if self.rows.is_none() || is_beyond || self.idle.most() == 0 {
            return false;
        }
        self.forget_idle(1, moment, said);
        let stands = watch.alerted && self.standings.of(device, metric, tell::SERIES).is_some();
        let (number, other) = self.idle.put(device, metric, stands);
        if let Some(other) = other {
            self.forget_row(other, moment, said);
        }
        let mut row = vec![ROW_VERSION];
        write_text(device, &mut row);
        write_text(metric, &mut row);
        watch.write(&mut row);
        if let Some(rows) = &mut self.rows {
            rows.put(number, row);
        }
        true
    }

    /// Forgets those that gave way longest ago, until there is room for so many.
    pub(super) fn forget_idle(&mut self, room: usize, moment: Moment, said: &mut Vec<Said>) {
        while let Some(forgotten) = self.idle.forget(room) {
            self.forget_row(forgotten, moment, said);
        }
    }

    fn forget_row(&mut self, (number, names): Forgotten, moment: Moment, said: &mut Vec<Said>) {
        self.counts.forgotten += 1;
        if let Some(rows) = &mut self.rows {
            rows.gone(number, self.idle.next());
        }
        if let Some((device, metric)) = names {
            self.tell_forgotten((&device, &metric), moment.origin, said);
        }
    }

    /// What was known of a series that speaks again. Where it is lost, nothing but that its alert
    /// stands, which is over as any other.
    pub(super) fn take_back(
        &mut self,
        (device, metric): (&str, &str),
        moment: Moment,
        said: &mut Vec<Said>,
    ) -> Option<Watch> {
        let (number, names) = self.idle.take(device, metric)?;
        let names = names
            .as_ref()
            .map(|(device, metric)| (&**device, &**metric));
        let alerted = names == Some((device, metric));
        if let Some(other) = names.filter(|_| !alerted) {
            // One of the same key, which is not known any more.
            self.tell_forgotten(other, moment.origin, said);
        }
        let row = self.rows.as_mut().and_then(|rows| {
            let row = rows.get(number);
            rows.gone(number, self.idle.next());
            row
        });
        let preset = self.settings.preset;
        let watch = row.and_then(|row| read_row(&row, device, metric));
        match watch {
            Some(mut watch) => {
                self.counts.taken_back += 1;
                watch.judge_by(preset);
                Some(watch)
            }
            None => {
                self.counts.lost += 1;
                let mut watch = Watch::new(preset);
                if alerted {
                    (watch.alerted, watch.quiet) = (true, 0);
                } else if self.is_replay && names.is_none() {
                    // The life before may have known it, and told an alert that nobody knows now.
                    self.tell_forgotten((device, metric), moment.origin, said);
                }
                Some(watch)
            }
        }
    }
}

/// What a row says of the series of these names; `None` when it is another's, or none.
fn read_row(row: &[u8], device: &str, metric: &str) -> Option<Watch> {
    let mut input = row.strip_prefix(&[ROW_VERSION])?;
    let names = (read_text(&mut input)?, read_text(&mut input)?);
    let watch = Watch::read(&mut input)?;
    (names == (device, metric) && input.is_empty()).then_some(watch)
}
