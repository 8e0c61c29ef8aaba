//! From latencies to what is told of them.

use serde_json::{Value, json};

/// Upper bounds of a histogram's bars, in ms; the last bar has none.
pub const BARS_MS: [i64; 12] = [1, 2, 3, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_000];

/// Count, percentiles, greatest, in ms; and how many are within each of [`BARS_MS`] and not the one
/// before.
pub fn of(latencies_us: &[i64]) -> Value {
    let mut sorted = latencies_us.to_vec();
    sorted.sort_unstable();
    let ms = |us: i64| us as f64 / 1_000.0;
    let of = |share: f64| percentile(&sorted, share).map(ms);
    let mut bars = vec![0_u64; BARS_MS.len() + 1];
    for us in &sorted {
        let bar = BARS_MS.iter().position(|bound| *us <= bound * 1_000);
        bars[bar.unwrap_or(BARS_MS.len())] += 1;
    }
    json!({
        "count": sorted.len(),
        "p50": of(0.5),
        "p90": of(0.9),
        "p99": of(0.99),
        "p999": of(0.999),
        "min": sorted.first().copied().map(ms),
        "max": sorted.last().copied().map(ms),
        "bars": bars,
    })
}

/// The least value that so great a share of all does not exceed.
fn percentile(sorted: &[i64], share: f64) -> Option<i64> {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_values_that_were() {
        let values: Vec<i64> = (1..=1_000).map(|ms| ms * 1_000).collect();
        let figures = of(&values);
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|key| figures[key].as_f64());
        assert_eq!([p50, p99, p999], [Some(500.0), Some(990.0), Some(999.0)]);
        assert_eq!(figures["max"], 1_000.0);
        assert_eq!(figures["bars"][0], 1);
        assert_eq!(figures["bars"][11], 0);
        assert_eq!(figures["bars"][10], 500);
        assert_eq!(of(&[])["count"], 0);
    }
}
