//! An aggregate, as it leaves the gateway: JSON of schema 1 (`docs/aggregate.schema.json`), on its
//! topic and in the lane `aggregates`. It decides nothing.

use crate::alert::{Revision, push_levels};
use crate::civil::rfc3339_micros;
use crate::detect::{Aggregate, Closed, WindowKind};
use crate::source::hub::AGGREGATES;
use serde::Serialize;
use tributary_protocol::reading::{Flags, Meta};

const SCHEMA: u8 = 1;

/// An aggregate, and whose it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Told<'a> {
    /// What a window says.
    pub aggregate: &'a Aggregate,
    /// What a window of its name holds.
    pub kind: WindowKind,
    /// What publishes.
    pub device: &'a str,
    /// What is measured.
    pub metric: &'a str,
    /// In which unit; none is empty.
    pub unit: &'a str,
    /// The settings that hold.
    pub revision: Revision,
}

/// As it is written. Its members only grow in number.
#[derive(Serialize)]
struct Text<'a> {
    schema: u8,
    window: &'a str,
    kind: &'static str,
    device: &'a str,
    metric: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
    from: String,
    to: String,
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    first: f64,
    last: f64,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    complete: bool,
    late: u64,
    trusted: bool,
    closed: &'static str,
    revision: Revision,
}

impl Told<'_> {
    /// The aggregate as JSON, on one line. Numbers are the shortest that are read back the same.
    pub fn json(&self) -> String {
        let it = self.aggregate;
        let values = [it.min, it.max, it.mean, it.std, it.first, it.last];
        debug_assert!(values.iter().all(|value| value.is_finite()));
        let text = Text {
            schema: SCHEMA,
            window: &it.window,
            kind: kind_name(self.kind),
            device: self.device,
            metric: self.metric,
            unit: self.unit,
            from: rfc3339_micros(it.from),
            to: rfc3339_micros(it.to),
            count: it.count,
            min: it.min,
            max: it.max,
            mean: it.mean,
            std: it.std,
            first: it.first,
            last: it.last,
            p50: it.quantiles.map(|quantiles| quantiles.p50),
            p95: it.quantiles.map(|quantiles| quantiles.p95),
            p99: it.quantiles.map(|quantiles| quantiles.p99),
            complete: it.complete,
            late: it.late,
            trusted: it.trusted,
            closed: closed_name(it.closed),
            revision: self.revision,
        };
        serde_json::to_string(&text).expect("numbers and texts are JSON")
    }

    /// The topic that it is published to.
    pub fn topic(&self) -> String {
        topic_of(&self.aggregate.window, self.device, self.metric)
    }

    /// What its lane says about its reading: measured from where the window begins on, and come
    /// when it closed.
    pub fn meta(&self, received_time: i64) -> Meta {
        Meta {
            event_time: self.aggregate.from,
            received_time,
            flags: match self.aggregate.trusted {
                true => Flags::default(),
                false => Flags::CLOCK_SUSPECT,
            },
            ..Meta::default()
        }
    }
}

/// The topic of a series' aggregates of one window; names as in alerts' topics.
pub fn topic_of(window: &str, device: &str, metric: &str) -> String {
    let mut topic = String::from(AGGREGATES);
    push_levels(&mut topic, window);
    for name in [device, metric] {
        topic.push('/');
        push_levels(&mut topic, name);
    }
    topic
}

fn kind_name(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Tumbling { .. } => "tumbling",
        WindowKind::Sliding { .. } => "sliding",
        WindowKind::Session { .. } => "session",
        WindowKind::Count { .. } => "count",
    }
}

fn closed_name(closed: Closed) -> &'static str {
    match closed {
        Closed::Watermark => "watermark",
        Closed::Idle => "idle",
        Closed::Full => "full",
        Closed::Crowded => "crowded",
        Closed::Anew => "anew",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::detect::{DeviceSlot, Quantiles, SeriesSlot};

    const FROM: i64 = 1_795_204_800_000_000;

    fn aggregate() -> Aggregate {
        Aggregate {
            series: SeriesSlot(0),
            device: DeviceSlot(0),
            window: "minute".into(),
            from: FROM,
            to: FROM + 60_000_000,
            count: 600,
            min: 5.21,
            max: 6.125,
            mean: 5.604583333333334,
            std: 0.1403,
            first: 5.5,
            last: 5.75,
            quantiles: Some(Quantiles {
                p50: 5.6,
                p95: 5.9,
                p99: 6.0,
            }),
            late: 2,
            complete: false,
            trusted: true,
            closed: Closed::Watermark,
        }
    }

    fn told(aggregate: &Aggregate) -> Told<'_> {
        Told {
            aggregate,
            kind: WindowKind::Tumbling { size: 60_000_000 },
            device: "plant-1/pump-0007",
            metric: "flow",
            unit: "l/s",
            revision: Revision(0x0123_4567_89ab_cdef_u64.to_be_bytes()),
        }
    }

    #[test]
    fn the_golden_aggregate_is_what_is_written() {
        let golden = include_str!("../../protocol/tests/data/aggregate.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let aggregate = aggregate();
        let written: serde_json::Value = serde_json::from_str(&told(&aggregate).json()).unwrap();
        assert_eq!(written, golden);
    }

    #[test]
    fn what_is_not_known_is_null_and_every_double_comes_back() {
        let values = [f64::MIN_POSITIVE, f64::MAX, -0.0, 0.1 + 0.2, 5e-324, -1e300];
        let [min, max, mean, std, first, last] = values;
        let odd = Aggregate {
            min,
            max,
            mean,
            std,
            first,
            last,
            quantiles: None,
            ..aggregate()
        };
        let text = told(&odd).json();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, value) in ["min", "max", "mean", "std", "first", "last"]
            .iter()
            .zip(values)
        {
            let of = text.split(&format!("\"{name}\":")).nth(1).unwrap();
            let digits = of.split([',', '}']).next().unwrap();
            let back: f64 = digits.parse().unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{name}");
        }
        assert!(read["p50"].is_null() && read["p99"].is_null());
        assert!(!text.contains('\n'));
    }

    #[test]
    fn its_reading_is_of_where_the_window_begins() {
        let aggregate = Aggregate {
            trusted: false,
            ..aggregate()
        };
        let meta = told(&aggregate).meta(FROM + 61_000_000);
        assert_eq!(
            (meta.event_time, meta.received_time),
            (FROM, FROM + 61_000_000)
        );
        assert_eq!(meta.flags, Flags::CLOCK_SUSPECT);
    }

    #[test]
    fn no_name_makes_a_topic_that_is_a_filter_or_empty() {
        let topic = topic_of("minute", "a/b", "c+#");
        assert_eq!(topic, "tributary/aggregates/minute/a/b/c%2B%23");
        assert_eq!(topic_of("w", "", "m"), "tributary/aggregates/w/%/m");
        let aggregate = aggregate();
        assert_eq!(
            told(&aggregate).topic(),
            "tributary/aggregates/minute/plant-1/pump-0007/flow"
        );
    }
}
