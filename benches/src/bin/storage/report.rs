//! From the samples of a measure to figures: the median, and the least and the greatest beside it.

use crate::meter::Sample;
use serde::Serialize;

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// What a measure took.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub measure: String,
    /// What it does.
    pub about: String,
    /// Readings that went through in one round; one message holds one.
    pub readings: u64,
    /// Bytes of payload a reading.
    pub payload_bytes_per_reading: Option<Spread>,
    /// Microseconds of CPU a reading, all threads, kernel included.
    pub cpu_us_per_reading: Option<Spread>,
    /// Milliseconds of CPU.
    pub cpu_ms: Option<Spread>,
    /// Milliseconds from begin to end.
    pub elapsed_ms: Option<Spread>,
    /// Readings a second.
    pub readings_per_s: Option<Spread>,
    /// Bytes written.
    pub written_bytes: Option<Spread>,
    /// Bytes written to bytes of payload.
    pub written_to_payload: Option<Spread>,
    /// Bytes written to bytes of payload and topic.
    pub written_to_message: Option<Spread>,
    /// Calls of fdatasync.
    pub fdatasyncs: Option<Spread>,
    /// Calls of fsync on a directory.
    pub dir_syncs: Option<Spread>,
    /// Greatest resident memory of the process, its input included.
    pub peak_rss_mib: Option<Spread>,
}

impl Figures {
    /// What these rounds come to.
    pub fn of(measure: &str, about: &str, samples: &[Sample]) -> Self {
        let over = |figure: &dyn Fn(&Sample) -> f64| {
            let values: Vec<f64> = samples.iter().map(figure).collect();
            Spread::of(values).filter(|spread| spread.max.is_finite())
        };
        let per = |whole: u64, parts: u64| whole as f64 / parts as f64;
        let readings = samples.first().map_or(0, |sample| sample.readings);
        Self {
            measure: measure.to_owned(),
            about: about.to_owned(),
            readings,
            payload_bytes_per_reading: over(&|s| per(s.payload_bytes, s.readings)),
            cpu_us_per_reading: over(&|s| per(s.cpu_ns, s.readings) / 1e3),
            cpu_ms: over(&|s| s.cpu_ns as f64 / 1e6),
            elapsed_ms: over(&|s| s.elapsed_ns as f64 / 1e6),
            readings_per_s: over(&|s| per(s.readings, s.elapsed_ns) * 1e9).filter(|_| readings > 0),
            written_bytes: over(&|s| s.counts.written_bytes as f64),
            written_to_payload: over(&|s| per(s.counts.written_bytes, s.payload_bytes)),
            written_to_message: over(&|s| per(s.counts.written_bytes, s.message_bytes)),
            fdatasyncs: over(&|s| s.counts.fdatasyncs as f64),
            dir_syncs: over(&|s| s.counts.dir_syncs as f64),
            peak_rss_mib: over(&|s| s.peak_rss_bytes as f64 / (1024.0 * 1024.0)),
        }
    }

    /// The figures as rows of a table: what, and median with spread.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let rows = [
            ("CPU µs a reading", self.cpu_us_per_reading, 3),
            ("CPU ms", self.cpu_ms, 2),
            ("elapsed ms", self.elapsed_ms, 2),
            ("readings a second", self.readings_per_s, 0),
            ("payload bytes a reading", self.payload_bytes_per_reading, 1),
            ("bytes written", self.written_bytes, 0),
            ("written to payload", self.written_to_payload, 3),
            ("written to payload + topic", self.written_to_message, 3),
            ("fdatasyncs", self.fdatasyncs, 0),
            ("directory syncs", self.dir_syncs, 0),
            ("peak memory MiB", self.peak_rss_mib, 1),
        ];
        // What is nothing in every round says nothing: no bytes are written by who reads.
        rows.into_iter()
            .filter_map(|(what, spread, digits)| Some((what, spread?, digits)))
            .filter(|(_, spread, _)| spread.max > 0.0)
            .map(|(what, spread, digits)| (what, shown(spread, digits)))
            .collect()
    }
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    let number = |x: f64| format!("{x:.digits$}");
    if number(min) == number(max) {
        return number(median);
    }
    format!("{} ({} to {})", number(median), number(min), number(max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting::Counts;

    fn sample(cpu_ns: u64, readings: u64) -> Sample {
        Sample {
            readings,
            payload_bytes: readings * 60,
            message_bytes: readings * 90,
            cpu_ns,
            elapsed_ns: 2_000_000_000,
            counts: Counts {
                written_bytes: 9_000,
                fdatasyncs: 3,
                dir_syncs: 1,
            },
            peak_rss_bytes: 3 << 20,
        }
    }

    #[test]
    fn the_median_stands_with_its_spread() {
        let samples = [
            sample(500_000, 100),
            sample(100_000, 100),
            sample(200_000, 100),
        ];
        let figures = Figures::of("a", "b", &samples);
        let expected = Spread {
            median: 2.0,
            min: 1.0,
            max: 5.0,
        };
        assert_eq!(figures.cpu_us_per_reading, Some(expected));
        assert_eq!(figures.written_to_payload.unwrap().median, 1.5);
        assert_eq!(figures.written_to_message.unwrap().median, 1.0);
        assert_eq!(figures.readings_per_s.unwrap().median, 50.0);
        let rows = figures.rows();
        assert!(
            rows.contains(&("CPU µs a reading", "2.000 (1.000 to 5.000)".into())),
            "{rows:?}"
        );
        assert!(rows.contains(&("fdatasyncs", "3".into())), "{rows:?}");
    }

    #[test]
    fn what_has_no_readings_has_no_figures_a_reading() {
        let figures = Figures::of("open", "b", &[sample(7, 0)]);
        assert_eq!(figures.cpu_us_per_reading, None);
        assert_eq!(figures.readings_per_s, None);
        assert!(figures.cpu_ms.is_some());
    }
}
