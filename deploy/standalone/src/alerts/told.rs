//! An alert out of its JSON (`docs/alert.schema.json`), by a reader of the demo's own. Pure, and
//! total on any bytes.

use super::hits::{Alert, Summary};
use serde::Deserialize;
use tributary_sim::replay::time;

#[derive(Deserialize)]
struct Raw {
    id: String,
    state: String,
    kind: String,
    device: String,
    metric: String,
    event_time: String,
    window: Option<Window>,
    value: Option<f64>,
    text: String,
}

#[derive(Deserialize)]
struct Window {
    from: String,
    to: String,
}

/// What a publication says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An alert was raised.
    Alert(Alert),
    /// Alerts were held back.
    Summary(Summary),
}

/// What a publication says, if it is news. That an alert is over is none.
pub fn read(payload: &[u8]) -> Option<Told> {
    let raw: Raw = serde_json::from_slice(payload).ok()?;
    if raw.state != "raised" {
        return None;
    }
    let id = u128::from_str_radix(&raw.id, 16).ok()?;
    if raw.kind == "summary" {
        let window = raw.window?;
        // Its sentence ends in the first names.
        let (_, names) = raw.text.rsplit_once(": ").unwrap_or_default();
        return Some(Told::Summary(Summary {
            id,
            alerts: raw.value? as u64,
            names: names.split(", ").map(str::to_owned).collect(),
            span_us: (time::parse(&window.from)?, time::parse(&window.to)?),
        }));
    }
    let event_us = time::parse(&raw.event_time)?;
    let span_us = match &raw.window {
        // Its end is the first time behind it.
        Some(window) => (time::parse(&window.from)?, time::parse(&window.to)? - 1),
        None => (event_us, event_us),
    };
    Some(Told::Alert(Alert {
        id,
        device: raw.device,
        metric: raw.metric,
        span_us,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const GOLDEN: &str = include_str!("../../../../protocol/tests/data/alert.json");

    fn with(member: &str, value: Value) -> Vec<u8> {
        let mut alert: Value = serde_json::from_str(GOLDEN).unwrap();
        alert[member] = value;
        alert.to_string().into()
    }

    fn alert(bytes: &[u8]) -> Alert {
        let Some(Told::Alert(alert)) = read(bytes) else {
            panic!("{:?}", read(bytes));
        };
        alert
    }

    #[test]
    fn a_summary_is_read_as_the_agent_says_it() {
        let mut summary: Value = serde_json::from_str(GOLDEN).unwrap();
        let text = "12 more alerts came than are told one by one; the first of them: \
                    plant-1/pump-0001 flow, plant-1/pump-0002 vibration";
        summary["kind"] = json!("summary");
        summary["value"] = json!(12.0);
        summary["text"] = json!(text);
        let Some(Told::Summary(summary)) = read(summary.to_string().as_bytes()) else {
            panic!("no summary");
        };
        let names = ["plant-1/pump-0001 flow", "plant-1/pump-0002 vibration"];
        assert_eq!(
            (summary.alerts, &*summary.names),
            (12, &names.map(String::from)[..])
        );
        let second = 1_795_204_800_000_000;
        assert_eq!(summary.span_us, (second - 1_000_000, second));
    }

    #[test]
    fn the_golden_alert_is_read() {
        let alert = alert(GOLDEN.as_bytes());
        assert_eq!(alert.id, 0x5f0c_6a1e_9b3d_4728_8ac1_d2e3_f405_1627);
        assert_eq!(
            (&*alert.device, &*alert.metric),
            ("plant-1/pump-0007", "temperature")
        );
        let second = 1_795_204_800_000_000;
        assert_eq!(alert.span_us, (second - 1_000_000, second - 1));
        let alone = self::alert(&with("window", Value::Null));
        assert_eq!(alone.span_us, (second + 123_456, second + 123_456));
    }

    #[test]
    fn what_raises_nothing_or_is_no_alert_is_passed_over() {
        for (member, value) in [
            ("state", json!("cleared")),
            ("id", json!("no hash")),
            ("event_time", json!("noon")),
            ("window", json!({ "from": "noon", "to": "noon" })),
        ] {
            assert_eq!(read(&with(member, value)), None, "{member}");
        }
        for bytes in [&b""[..], b"{}", b"\xff\xfe", b"[1,2"] {
            assert_eq!(read(bytes), None);
        }
    }
}
