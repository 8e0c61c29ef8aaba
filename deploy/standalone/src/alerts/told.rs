//! An alert out of its JSON (`docs/alert.schema.json`), by a reader of the demo's own. Pure, and
//! total on any bytes.

use super::hits::Alert;
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
}

#[derive(Deserialize)]
struct Window {
    from: String,
    to: String,
}

/// What a publication says: an alert that was raised, or nothing of that kind. One that was cleared
/// says no news, and a summary stands for alerts that are not told one by one.
pub fn read(payload: &[u8]) -> Option<Alert> {
    let raw: Raw = serde_json::from_slice(payload).ok()?;
    if raw.state != "raised" || raw.kind == "summary" {
        return None;
    }
    let event_us = time::parse(&raw.event_time)?;
    let span_us = match &raw.window {
        // Its end is the first time behind it.
        Some(window) => (time::parse(&window.from)?, time::parse(&window.to)? - 1),
        None => (event_us, event_us),
    };
    Some(Alert {
        id: u128::from_str_radix(&raw.id, 16).ok()?,
        device: raw.device,
        metric: raw.metric,
        span_us,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const GOLDEN: &str = include_str!("../../../../protocol/tests/data/alert.json");

    fn with(member: &str, value: Value) -> Vec<u8> {
        let mut alert: Value = serde_json::from_str(GOLDEN).unwrap();
        alert[member] = value;
        alert.to_string().into()
    }

    #[test]
    fn the_golden_alert_is_read() {
        let alert = read(GOLDEN.as_bytes()).unwrap();
        assert_eq!(alert.id, 0x5f0c_6a1e_9b3d_4728_8ac1_d2e3_f405_1627);
        assert_eq!(
            (&*alert.device, &*alert.metric),
            ("plant-1/pump-0007", "temperature")
        );
        let second = 1_795_204_800_000_000;
        assert_eq!(alert.span_us, (second - 1_000_000, second - 1));
        let alone = read(&with("window", Value::Null)).unwrap();
        assert_eq!(alone.span_us, (second + 123_456, second + 123_456));
    }

    #[test]
    fn what_raises_nothing_or_is_no_alert_is_passed_over() {
        for (member, value) in [
            ("state", json!("cleared")),
            ("kind", json!("summary")),
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
