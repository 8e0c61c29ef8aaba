//! Readings of vibrations into windows, and windows into features.

use super::moments::{Moments, by};
use super::spec::{OCTAVE_GROUPS, SHAFT_HARMONICS, Spec, VibrationSpecs};
use super::spectrum::Spectrum;
use super::window::{Grown, Window};
use crate::detect::sample::{Place, Sample, SeriesSlot};
use crate::detect::watched::{Slab, Subject};
use crate::limits::VIBRATION_SAMPLES_MAX;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a window says.
#[derive(Clone, PartialEq, Debug)]
pub struct VibrationFeatures {
    /// The device.
    pub device: Box<str>,
    /// The metric of the samples.
    pub metric: Box<str>,
    /// Their unit; empty when nobody said.
    pub unit: Box<str>,
    /// When the first sample was taken: microseconds since 1970.
    pub from: i64,
    /// When the last one was.
    pub to: i64,
    /// Samples a second.
    pub rate_hz: f64,
    /// What the features are called: `rms`, `kurtosis`, `bpfo` and so on.
    pub names: Arc<[Box<str>]>,
    /// The features, each a finite number, in the order of their names.
    pub values: Vec<f64>,
}

/// What was counted since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VibrationCounts {
    /// Windows that gave features.
    pub windows: u64,
    /// Windows that began anew: samples were missing, came late or were no numbers.
    pub broken: u64,
    /// Windows whose features are no numbers.
    pub undefined: u64,
    /// Series without features, because there was no room for their windows.
    pub refused: u64,
}

/// A series that is a vibration.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Wave {
    pub subject: Subject,
    pub spec: usize,
    pub window: Window,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Bound {
    Unknown,
    Free,
    /// A vibration that there was no room for; how often room had been made then.
    Refused(u64),
    Wave(u32),
}

/// Vibrations with the windows that they fill.
pub struct VibrationEngine {
    pub(super) specs: Arc<VibrationSpecs>,
    /// For each section, made for its first window.
    spectra: Vec<Option<Box<Spectrum>>>,
    slots: Vec<Bound>,
    pub(super) waves: Slab<Wave>,
    pub(super) names: BTreeMap<Arc<str>, u32>,
    /// Samples that all windows have together when they are full.
    samples: usize,
    /// How often room was made.
    made_room: u64,
    counts: VibrationCounts,
}

impl fmt::Debug for VibrationEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VibrationEngine({} series, {:?})",
            self.waves.len(),
            self.counts
        )
    }
}

impl VibrationEngine {
    /// An engine that has seen nothing.
    pub fn new(specs: Arc<VibrationSpecs>) -> Self {
        Self {
            spectra: specs.specs.iter().map(|_| None).collect(),
            specs,
            slots: Vec::new(),
            waves: Slab::new(),
            names: BTreeMap::new(),
            samples: 0,
            made_room: 0,
            counts: VibrationCounts::default(),
        }
    }

    /// What is configured.
    pub fn specs(&self) -> &Arc<VibrationSpecs> {
        &self.specs
    }

    /// What was counted.
    pub fn counts(&self) -> VibrationCounts {
        self.counts
    }

    /// Takes a sample: a reading of a waveform. Whether its series is a vibration, which it is
    /// without room for its window, too: its samples are no readings, and say nothing then.
    pub fn step(
        &mut self,
        place: &Place<'_>,
        sample: &Sample,
        out: &mut Vec<VibrationFeatures>,
    ) -> bool {
        let at = match self.bound(place) {
            Bound::Wave(at) => at,
            Bound::Refused(_) => return true,
            Bound::Unknown | Bound::Free => return false,
        };
        let Some(wave) = self.waves.at_mut(at) else {
            return false;
        };
        let Some(spec) = self.specs.specs.get(wave.spec) else {
            return false;
        };
        if sample.late || !sample.value.is_finite() {
            self.counts.broken += u64::from(!wave.window.samples.is_empty());
            wave.window.clear();
            return true;
        }
        match wave
            .window
            .push(spec.window, sample.event_time, sample.value)
        {
            Grown::More => {}
            Grown::Anew => self.counts.broken += 1,
            Grown::Full => {
                let spectrum = self.spectra.get_mut(wave.spec).map(|spectrum| {
                    spectrum.get_or_insert_with(|| Box::new(Spectrum::new(spec.window)))
                });
                let rate_hz = wave.window.rate_hz();
                let values = spectrum.map(|s| features(spec, s, &wave.window.samples, rate_hz));
                match values.filter(|values| values.iter().all(|value| value.is_finite())) {
                    None => self.counts.undefined += 1,
                    Some(values) => {
                        self.counts.windows += 1;
                        out.push(VibrationFeatures {
                            device: place.device_name.into(),
                            metric: place.metric.into(),
                            unit: place.unit.into(),
                            from: wave.window.first,
                            to: wave.window.last,
                            rate_hz,
                            names: Arc::clone(&spec.names),
                            values,
                        });
                    }
                }
                wave.window.clear();
            }
        }
        true
    }

    /// What a series is. One without room is looked at again once room was made, and only then: so
    /// it is the same after a restart, which knows of none.
    fn bound(&mut self, place: &Place<'_>) -> Bound {
        let SeriesSlot(slot) = place.series;
        let slot = slot as usize;
        let known = self.slots.get(slot).copied().unwrap_or(Bound::Unknown);
        match known {
            Bound::Free | Bound::Wave(_) => return known,
            Bound::Refused(made_room) if made_room == self.made_room => return known,
            Bound::Unknown | Bound::Refused(_) => {}
        }
        let bound = self.bind(place.device_name, place.metric);
        let is_first = !matches!(known, Bound::Refused(_));
        self.counts.refused += u64::from(is_first && matches!(bound, Bound::Refused(_)));
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Bound::Unknown);
        }
        if let Some(known) = self.slots.get_mut(slot) {
            *known = bound;
        }
        bound
    }

    fn bind(&mut self, device: &str, metric: &str) -> Bound {
        let known = self.names.get(&*Subject::key(device, metric));
        if let Some(at) = known {
            return Bound::Wave(*at);
        }
        let Some(spec) = self.specs.find(device, metric) else {
            return Bound::Free;
        };
        let added = self.add(Subject::new(device, metric), spec, Window::default());
        added.map_or(Bound::Refused(self.made_room), Bound::Wave)
    }

    /// Adds a series, if there is room for its window.
    pub(super) fn add(&mut self, subject: Subject, spec: usize, window: Window) -> Option<u32> {
        let length = self.specs.specs.get(spec)?.window;
        if self.samples + length > VIBRATION_SAMPLES_MAX {
            return None;
        }
        self.samples += length;
        let key = Arc::clone(subject.text());
        let at = self.waves.add(Wave {
            subject,
            spec,
            window,
        });
        self.names.insert(key, at);
        Some(at)
    }

    /// A series is no longer at hand, and its slot may be another's; its window is given up.
    pub fn forget(&mut self, place: &Place<'_>) {
        if let Some(slot) = self.slots.get_mut(place.series.0 as usize) {
            *slot = Bound::Unknown;
        }
        let key = Subject::key(place.device_name, place.metric);
        let Some(at) = self.names.remove(&*key) else {
            return;
        };
        if let Some(wave) = self.waves.remove(at) {
            let spec = self.specs.specs.get(wave.spec);
            self.samples -= spec.map_or(0, |spec| spec.window);
            self.made_room += 1;
        }
        // Another slot may be of the same names, in another type.
        for slot in &mut self.slots {
            if *slot == Bound::Wave(at) {
                *slot = Bound::Unknown;
            }
        }
    }

    /// Something else is configured from now on. A window goes on where its section is as it was.
    pub fn replace(&mut self, specs: Arc<VibrationSpecs>) {
        let before = std::mem::replace(self, Self::new(specs));
        self.counts = before.counts;
        for wave in before.names.values().filter_map(|at| before.waves.at(*at)) {
            let subject = &wave.subject;
            let Some(place) = self.specs.find(subject.device(), subject.metric()) else {
                continue;
            };
            let was = before.specs.specs.get(wave.spec);
            let window = match was == self.specs.specs.get(place) {
                true => wave.window.clone(),
                false => Window::default(),
            };
            let _ = self.add(subject.clone(), place, window);
        }
    }
}

/// What these samples say, in the order of the names.
fn features(spec: &Spec, spectrum: &mut Spectrum, samples: &[f64], rate_hz: f64) -> Vec<f64> {
    let moments = Moments::of(samples);
    let bin_hz = rate_hz / samples.len() as f64;
    let spectral_kurtosis = spectrum.kurtosis(samples, moments.mean);
    spectrum.look(samples, moments.mean);
    let mut values = vec![
        moments.rms,
        moments.peak,
        moments.peak_to_peak,
        moments.crest(),
        moments.skewness,
        moments.kurtosis,
        spectrum.dominant() as f64 * bin_hz,
        spectral_kurtosis,
    ];
    bands(spec, spectrum.energies(), bin_hz, &mut values);
    let Some(shaft_hz) = spec.shaft_hz else {
        return values;
    };
    let turn = shaft_hz / bin_hz;
    values.extend((1..=SHAFT_HARMONICS).map(|n| spectrum.energy_at(turn * n as f64)));
    let Some(bearing) = &spec.bearing else {
        return values;
    };
    let bins = samples.len() / 2 + 1;
    let (from, to) = match spec.envelope_hz {
        Some((from, to)) => ((from / bin_hz) as usize, (to / bin_hz) as usize),
        None => (bins / 2, bins),
    };
    spectrum.look_at_envelope(samples, moments.mean, from, to);
    // A knock is no sine: its first three harmonics count together.
    let at = |turns: f64| -> f64 {
        let harmonics = (1..=SHAFT_HARMONICS).map(|n| turns * turn * n as f64);
        harmonics.map(|bin| spectrum.energy_at(bin)).sum()
    };
    values.extend(bearing.rates().map(at));
    values
}

/// The energy by band; `energies` begin with the first bin that is not 0.
fn bands(spec: &Spec, energies: &[f64], bin_hz: f64, values: &mut Vec<f64>) {
    let first = values.len();
    let count = match spec.bands_hz.len() {
        0 => OCTAVE_GROUPS,
        edges => edges - 1,
    };
    values.resize(first + count, 0.0);
    let octaves = (energies.len() as f64).log2();
    for (bin, energy) in (1..).zip(energies) {
        let band = match spec.bands_hz.is_empty() {
            true => {
                let group = f64::log2(f64::from(bin)) * OCTAVE_GROUPS as f64;
                Some((by(group, octaves) as usize).min(OCTAVE_GROUPS - 1))
            }
            false => {
                let hz = f64::from(bin) * bin_hz;
                spec.bands_hz
                    .partition_point(|edge| *edge <= hz)
                    .checked_sub(1)
            }
        };
        let value = band.and_then(|band| values.get_mut(first + band));
        if let Some(value) = value {
            *value += energy;
        }
    }
}
