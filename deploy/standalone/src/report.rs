//! What the demo found, for people and for programs.

use crate::alerts::{Found, Tally};
use crate::chaos::Blows;
use serde::{Serialize, Serializer};
use std::fmt;
use tributary_sim::verify::Report;

/// How long alerts took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Greatest.
    pub max: f64,
}

/// The demo's result; the object that `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Readings that the fleet published.
    pub published: u64,
    /// Readings of the fleet in the lake, each counted once.
    pub delivered: u64,
    /// Acknowledged readings that are not in the lake, and readings in it that are not as they
    /// were published.
    pub lost: u64,
    /// Copies in the lake beyond the first.
    pub duplicates: u64,
    /// Faults injected into the fleet, and published so far that they could be told.
    pub faults_injected: u64,
    /// Faults that an alert was raised about.
    pub faults_detected: u64,
    /// Alerts without a fault, told one by one or in a summary.
    pub alerts_false: u64,
    /// Alerts that were told in a summary alone.
    pub alerts_held_back: u64,
    /// From the socket write of a faulty reading to the arrival of its alert.
    pub alert_latency_ms: Latency,
    /// Bytes of UDP payload that the agent sent.
    pub uplink_bytes: u64,
    /// `uplink_bytes` over `delivered`.
    pub bytes_per_reading: f64,
    /// Seconds from the first start to the end of the drain.
    pub elapsed_s: f64,
    /// What went down; all of it 0, and not shown to people, without `--chaos`.
    #[serde(flatten, serialize_with = "or_none")]
    pub blows: Option<Blows>,
    /// What came of the faults, for people.
    #[serde(skip)]
    pub found: Found,
}

fn or_none<S: Serializer>(blows: &Option<Blows>, to: S) -> Result<S::Ok, S::Error> {
    blows.unwrap_or_default().serialize(to)
}

impl Summary {
    /// The summary of a comparison.
    pub fn new(report: &Report, found: Found, uplink_bytes: u64, elapsed_s: f64) -> Self {
        let per_reading = uplink_bytes as f64 / (report.delivered.max(1)) as f64;
        Self {
            published: report.published,
            delivered: report.delivered,
            lost: report.lost + report.changed,
            duplicates: report.duplicates,
            faults_injected: found.all().injected,
            faults_detected: found.all().found,
            alerts_false: found.alerts_false,
            alerts_held_back: found.alerts_held_back,
            alert_latency_ms: found.latency,
            uplink_bytes,
            bytes_per_reading: (per_reading * 1_000.0).round() / 1_000.0,
            elapsed_s: (elapsed_s * 1_000.0).round() / 1_000.0,
            blows: None,
            found,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "published          {:>12}", grouped(self.published))?;
        writeln!(f, "delivered          {:>12}", grouped(self.delivered))?;
        writeln!(f, "lost               {:>12}", grouped(self.lost))?;
        writeln!(f, "duplicates         {:>12}", grouped(self.duplicates))?;
        if let Some(blows) = self.blows {
            writeln!(f, "kills, agent       {:>12}", grouped(blows.kills_agent))?;
            writeln!(
                f,
                "kills, aggregator  {:>12}",
                grouped(blows.kills_aggregator)
            )?;
            writeln!(f, "link cuts          {:>12}", grouped(blows.link_cuts))?;
        }
        writeln!(f, "uplink bytes       {:>12}", grouped(self.uplink_bytes))?;
        writeln!(f, "bytes per reading  {:>12.2}", self.bytes_per_reading)?;
        writeln!(f, "seconds            {:>12.1}", self.elapsed_s)?;
        write!(f, "{}", in_words(&self.found))
    }
}

/// What came of the faults, in a sentence or two.
fn in_words(found: &Found) -> String {
    let Tally { injected, found: n } = found.all();
    let [injected, n, wrong] = [injected, n, found.alerts_false].map(grouped);
    let held_back = match found.alerts_held_back {
        0 => String::new(),
        count => format!("; {} of all alerts came in summaries alone", grouped(count)),
    };
    if let Some(why) = &found.refused {
        return format!("{injected} faults injected; whether they were found nobody knows: {why}");
    }
    if found.kinds.is_empty() {
        return format!("no faults injected, {wrong} alerts{held_back}");
    }
    let kind = |(kind, tally): &(_, Tally)| format!("{kind} {} of {}", tally.found, tally.injected);
    let kinds: Vec<_> = found.kinds.iter().map(kind).collect();
    let kinds = kinds.join(", ");
    let words =
        format!("{n} of {injected} faults found ({kinds}), {wrong} false alerts{held_back}");
    let Latency { p50, p99, max, .. } = found.latency;
    if max == 0.0 {
        return words;
    }
    format!(
        "{words}\nfrom a reading's way into the socket to its alert: median {p50:.1} ms, \
         99 of 100 within {p99:.1} ms, all within {max:.1} ms"
    )
}

/// A count with its thousands apart.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_sim::fault::FaultKind;

    #[test]
    fn faults_and_alerts_are_said_in_words() {
        let tally = |injected, found| Tally { injected, found };
        let mut found = Found::default();
        assert_eq!(in_words(&found), "no faults injected, 0 alerts");
        found.kinds = vec![
            (FaultKind::Spike, tally(3, 2)),
            (FaultKind::Bearing, tally(1_000, 1_000)),
        ];
        found.alerts_false = 4;
        let words = "1,002 of 1,003 faults found (spike 2 of 3, bearing fault 1000 of 1000), \
                     4 false alerts";
        assert_eq!(in_words(&found), words);
        found.latency = Latency {
            p50: 4.06,
            p99: 20.0,
            p999: 24.0,
            max: 25.0,
        };
        let line = "from a reading's way into the socket to its alert: median 4.1 ms, \
                    99 of 100 within 20.0 ms, all within 25.0 ms";
        assert_eq!(in_words(&found), format!("{words}\n{line}"));
        found.alerts_held_back = 1_200;
        let held_back = "; 1,200 of all alerts came in summaries alone";
        assert_eq!(in_words(&found), format!("{words}{held_back}\n{line}"));
        found.refused = Some("it said no".to_owned());
        assert!(in_words(&found).starts_with("1,003 faults injected; "));
        assert!(in_words(&found).ends_with("it said no"));
    }

    #[test]
    fn thousands_stand_apart() {
        let shown: Vec<_> = [0, 999, 1_000, 1_234_567].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
