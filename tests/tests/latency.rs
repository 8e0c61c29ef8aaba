//! What times alerts finds them: a short run of `cargo xtask prove latency`. How long they take is
//! no matter here.

use tributary_tests::latency::cases::{self, Amount, Case};
use tributary_tests::latency::load::Plan;

#[test]
fn alerts_of_planted_spikes_are_found_and_timed() {
    let plan = Plan {
        connections: 8,
        series: 40,
        rate: 4_000,
    };
    let amount = Amount {
        plan,
        spike_every: 397,
        spikes: 20,
    };
    let came = cases::run(Case::Offline, &amount);
    let number = |pointer: &str| came.pointer(pointer).and_then(serde_json::Value::as_f64);
    let [planted, found] = ["/planted", "/latency/count"].map(|pointer| number(pointer).unwrap());
    assert!(planted >= 20.0, "{came}");
    assert!(found > planted / 2.0, "{came}");
    assert!(number("/latency/p50").unwrap() > 0.0, "{came}");
    assert!(number("/cpu/agent").unwrap() > 0.0, "{came}");
}
