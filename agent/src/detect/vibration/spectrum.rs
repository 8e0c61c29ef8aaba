//! Spectra of one length of window, with the room that they need.
//!
//! Energies are one-sided, of the samples times a Hann window, each bin the mean square that it
//! stands for: all of them together are the mean square of the samples (Parseval; the window's own
//! mean square divided out: F. J. Harris, "On the use of windows for harmonic analysis with the
//! discrete Fourier transform", Proceedings of the IEEE 66 (1978)).

use crate::limits::VIBRATION_WINDOW;
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Frames of a window beside each other in which its spectral kurtosis is measured; as many less
/// one lie between them.
const FRAMES: usize = 32;
/// Samples of a frame, at least.
const FRAME_LEAST: usize = 16;
/// Groups of bins over which it is averaged.
const KURTOSIS_GROUPS: usize = 16;
/// The part of all energy below which a bin holds none.
const NOTHING: f64 = 1e-12;
/// Bins to each side over which a Hann window spreads one frequency.
const SPREAD: usize = 2;

/// One transform with a Hann window.
struct Hann {
    forward: Arc<dyn RealToComplex<f64>>,
    weights: Vec<f64>,
    /// The sum of the weights' squares.
    power: f64,
    input: Vec<f64>,
    output: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl Hann {
    fn new(planner: &mut RealFftPlanner<f64>, length: usize) -> Self {
        let forward = planner.plan_fft_forward(length);
        let weight = |i: usize| {
            let turn = std::f64::consts::TAU * i as f64 / length as f64;
            0.5 - 0.5 * turn.cos()
        };
        let weights: Vec<f64> = (0..length).map(weight).collect();
        Self {
            power: weights.iter().map(|weight| weight * weight).sum(),
            weights,
            input: forward.make_input_vec(),
            output: forward.make_output_vec(),
            scratch: forward.make_scratch_vec(),
            forward,
        }
    }

    /// Transforms samples less `mean`; the energies of the bins.
    fn energies(&mut self, samples: &[f64], mean: f64) -> impl Iterator<Item = f64> {
        let weighted = self.input.iter_mut().zip(&self.weights).zip(samples);
        for ((to, weight), sample) in weighted {
            *to = (sample - mean) * weight;
        }
        let (input, output, scratch) = (&mut self.input, &mut self.output, &mut self.scratch);
        let done = self.forward.process_with_scratch(input, output, scratch);
        done.expect("input, output and scratch were made for this transform");
        let length = self.weights.len();
        let scale = 1.0 / (self.power * length as f64);
        // The first bin stands for itself, and so does the last one of an even length.
        let alone = move |bin: usize| bin == 0 || 2 * bin == length;
        let bins = self.output.iter().enumerate();
        bins.map(move |(bin, value)| {
            let sides = if alone(bin) { 1.0 } else { 2.0 };
            sides * value.norm_sqr() * scale
        })
    }
}

/// Transforms of one length of window.
pub(super) struct Spectrum {
    whole: Hann,
    frame: Hann,
    back: Arc<dyn ComplexToReal<f64>>,
    back_scratch: Vec<Complex<f64>>,
    /// The band whose envelope is looked at, and what becomes of it.
    band: Vec<Complex<f64>>,
    half: Vec<Complex<f64>>,
    wave: Vec<f64>,
    envelope: Vec<f64>,
    energies: Vec<f64>,
    squares: Vec<(f64, f64)>,
}

impl Spectrum {
    /// For windows of so many samples, at least 64.
    pub fn new(length: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        let length = length.max(VIBRATION_WINDOW.0 as usize);
        let back = planner.plan_fft_inverse(length);
        let frame = (length / FRAMES).max(FRAME_LEAST);
        Self {
            whole: Hann::new(&mut planner, length),
            frame: Hann::new(&mut planner, frame),
            back_scratch: back.make_scratch_vec(),
            band: back.make_input_vec(),
            half: back.make_input_vec(),
            wave: back.make_output_vec(),
            envelope: back.make_output_vec(),
            energies: vec![0.0; length / 2 + 1],
            squares: vec![(0.0, 0.0); frame / 2 + 1],
            back,
        }
    }

    /// Looks at a window of samples whose mean is this.
    pub fn look(&mut self, samples: &[f64], mean: f64) {
        let energies = self.whole.energies(samples, mean);
        self.energies
            .iter_mut()
            .zip(energies)
            .for_each(|(to, energy)| *to = energy);
    }

    /// The energies of what was looked at, but for that of frequency 0.
    pub fn energies(&self) -> &[f64] {
        self.energies.get(1..).unwrap_or_default()
    }

    /// The bin of the greatest energy; 0 where there is none.
    pub fn dominant(&self) -> usize {
        let bins = self.energies().iter().enumerate();
        let greatest = bins.max_by(|(_, a), (_, b)| a.total_cmp(b));
        greatest
            .filter(|(_, energy)| **energy > 0.0)
            .map_or(0, |(bin, _)| bin + 1)
    }

    /// The energy at a frequency, counted in bins, and in those that the window spreads it over; 0
    /// beyond half the rate of samples.
    pub fn energy_at(&self, bin: f64) -> f64 {
        let bin = bin.round();
        if !(bin >= 1.0 && bin < self.energies.len() as f64) {
            return 0.0;
        }
        let bin = bin as usize;
        let from = bin.saturating_sub(SPREAD).max(1);
        let to = (bin + SPREAD + 1).min(self.energies.len());
        self.energies.get(from..to).unwrap_or_default().iter().sum()
    }

    /// The greatest spectral kurtosis over sixteen groups of frequencies: about 0 of Gaussian
    /// noise, -1 of what is steady, more where a band rings now and then.
    ///
    /// `<|X|^4> / <|X|^2>^2 - 2` over frames: J. Antoni, "The spectral kurtosis: a useful tool for
    /// characterising non-stationary signals", Mechanical Systems and Signal Processing 20 (2006),
    /// section 3. Its mean over a group of bins, for few frames make that of one bin uncertain.
    pub fn kurtosis(&mut self, samples: &[f64], mean: f64) -> f64 {
        let length = self.frame.weights.len();
        self.squares.fill((0.0, 0.0));
        let mut frames = 0.0;
        for from in (0..).step_by((length / 2).max(1)) {
            let Some(frame) = samples.get(from..from + length) else {
                break;
            };
            let energies = self.frame.energies(frame, mean);
            for ((sum, squares), energy) in self.squares.iter_mut().zip(energies) {
                *sum += energy;
                *squares += energy * energy;
            }
            frames += 1.0;
        }
        // Where the window mixes in frequency 0, or half the rate, `X` is real and the 2 is a 3.
        let inner = self.squares.len().saturating_sub(SPREAD);
        let inner = self.squares.get(SPREAD..inner).unwrap_or_default();
        let all: f64 = inner.iter().map(|(sum, _)| sum).sum();
        // Where there is nothing, rounding is all that comes and goes.
        let least = all * NOTHING;
        let group = inner.len().div_ceil(KURTOSIS_GROUPS).max(1);
        let groups = inner.chunks(group).filter_map(|bins| {
            let there = bins.iter().filter(|(sum, _)| *sum > least);
            let (sum, count) = there.fold((0.0, 0.0), |(total, count), (sum, squares)| {
                (total + squares / sum * frames / sum - 2.0, count + 1.0)
            });
            (count > 0.0).then(|| sum / count)
        });
        groups.reduce(f64::max).unwrap_or(0.0)
    }

    /// Looks at the squared envelope of the bins `from..to` of samples, by its mean: an energy
    /// of 1/2 is an envelope that comes and goes altogether as a sine. Whether there is any.
    ///
    /// The squared envelope spectrum of Randall and Antoni 2011, section 5: `y^2 + h^2`, `h` being
    /// the Hilbert transform of the filtered `y`.
    pub fn look_at_envelope(&mut self, samples: &[f64], mean: f64, from: usize, to: usize) -> bool {
        let Self { whole, .. } = self;
        whole
            .input
            .iter_mut()
            .zip(samples)
            .for_each(|(to, sample)| *to = sample - mean);
        let forward = &whole.forward;
        let done =
            forward.process_with_scratch(&mut whole.input, &mut whole.output, &mut whole.scratch);
        done.expect("input, output and scratch were made for this transform");
        let length = whole.weights.len();
        let bins = self.band.iter_mut().zip(&whole.output).enumerate();
        for (bin, (to_bin, value)) in bins {
            // A bin that stands for itself has no Hilbert transform.
            let inside = (from..to).contains(&bin) && bin != 0 && 2 * bin != length;
            *to_bin = if inside { *value } else { Complex::default() };
        }
        for (to_bin, value) in self.half.iter_mut().zip(&self.band) {
            *to_bin = Complex::new(value.im, -value.re);
        }
        self.envelope.fill(0.0);
        for bins in [&mut self.band, &mut self.half] {
            let (wave, scratch) = (&mut self.wave, &mut self.back_scratch);
            let done = self.back.process_with_scratch(bins, wave, scratch);
            done.expect("the first bin and that of half the rate are 0, and all lengths fit");
            for (square, y) in self.envelope.iter_mut().zip(wave) {
                *square += *y * *y;
            }
        }
        let mean = self.envelope.iter().sum::<f64>() / length as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            self.energies.fill(0.0);
            return false;
        }
        self.envelope.iter_mut().for_each(|square| *square /= mean);
        let energies = self.whole.energies(&self.envelope, 1.0);
        self.energies
            .iter_mut()
            .zip(energies)
            .for_each(|(to, energy)| *to = energy);
        true
    }
}
