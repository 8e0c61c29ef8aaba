//! What needs no spectrum: moments of the samples about their mean, and how far they reach.

/// Moments of samples, in their unit.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Moments {
    pub mean: f64,
    /// Root mean square about the mean.
    pub rms: f64,
    /// Greatest distance from the mean.
    pub peak: f64,
    /// From the least to the greatest.
    pub peak_to_peak: f64,
    /// Third standardised moment; 0 of what is symmetric.
    pub skewness: f64,
    /// Fourth standardised moment: 1.5 of a sine, 3 of Gaussian noise, more of knocks.
    pub kurtosis: f64,
}

impl Moments {
    /// Those of `samples`; all 0 of none.
    pub fn of(samples: &[f64]) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let mut sums = [0.0; 3];
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for sample in samples {
            let distance = sample - mean;
            let square = distance * distance;
            sums[0] += square;
            sums[1] += square * distance;
            sums[2] += square * square;
            least = least.min(*sample);
            greatest = greatest.max(*sample);
        }
        let [second, third, fourth] = sums.map(|sum| sum / count);
        let rms = second.sqrt();
        Self {
            mean,
            rms,
            peak: (greatest - mean).max(mean - least),
            peak_to_peak: greatest - least,
            skewness: by(third, rms * rms * rms),
            kurtosis: by(fourth, second * second),
        }
    }

    /// Peak by RMS: the square root of 2 of a sine, 3 to 4 of noise, more of knocks.
    pub fn crest(&self) -> f64 {
        by(self.peak, self.rms)
    }
}

/// A ratio; 0 of what does not move at all.
pub(super) fn by(value: f64, scale: f64) -> f64 {
    if scale > 0.0 { value / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_books() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let turn = |i: u32| f64::from(i) / 100.0 * std::f64::consts::TAU;
        let sine: Vec<f64> = (0..1_000).map(|i| 7.0 + 3.0 * turn(i).sin()).collect();
        let of = Moments::of(&sine);
        near(of.mean, 7.0);
        near(of.rms, 3.0 / 2f64.sqrt());
        near(of.peak, 3.0);
        near(of.peak_to_peak, 6.0);
        near(of.crest(), 2f64.sqrt());
        near(of.skewness, 0.0);
        near(of.kurtosis, 1.5);
        // One of five is away: standardised, -1/2 four times and 2 once.
        let of = Moments::of(&[0.0, 0.0, 0.0, 0.0, 5.0]);
        near(of.skewness, 1.5);
        near(of.kurtosis, 3.25);
        let still = Moments::of(&[2.0; 64]);
        assert_eq!((still.rms, still.crest(), still.kurtosis), (0.0, 0.0, 0.0));
        assert_eq!(Moments::of(&[]), Moments::default());
        assert_eq!(Moments::of(&[3.0]).mean, 3.0);
    }
}
