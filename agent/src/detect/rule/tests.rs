//! What rules say of readings, as scripts: readings in, alerts out.

use super::{RuleChange, RuleEngine, RuleEvent, Rules};
use crate::detect::sample::{DeviceSlot, Place, Sample, SeriesSlot};
use std::sync::Arc;
use tributary_settings::Document;

mod joint;
mod kept;
mod kinds;
mod settings;

/// 2026-01-31T08:30:00Z.
const START: i64 = 1_769_848_200_000_000;

fn rules(text: &str) -> Arc<Rules> {
    Rules::parse(text).unwrap_or_else(|wrong| panic!("{wrong:?} in {text}"))
}

/// A rule with these settings.
fn rule(settings: &str) -> Arc<Rules> {
    rules(&format!("[[detect.rule]]\n{settings}\n"))
}

/// What is said against a configuration.
fn wrong(text: &str) -> Vec<String> {
    let mut document = Document::parse(text, "", []);
    Rules::read(&mut document.root().section("detect"));
    let wrong = document.finish();
    assert!(!wrong.is_empty(), "{text}");
    wrong.iter().map(ToString::to_string).collect()
}

/// A bench: an engine, its series by name, and everything that it said.
struct Bench {
    engine: RuleEngine,
    series: Vec<(String, String)>,
    said: Vec<RuleEvent>,
    /// Whether it goes through a checkpoint before each step.
    reborn: bool,
}

impl Bench {
    fn new(rules: Arc<Rules>) -> Self {
        Self {
            engine: RuleEngine::new(rules),
            series: Vec::new(),
            said: Vec::new(),
            reborn: false,
        }
    }

    /// The engine through its bytes.
    fn rebirth(&mut self) {
        let mut bytes = Vec::new();
        self.engine.write_checkpoint(&mut bytes);
        let mut input = &*bytes;
        let rules = Arc::clone(self.engine.rules());
        let engine = RuleEngine::read_checkpoint(&mut input, rules, &mut self.said).unwrap();
        assert!(input.is_empty());
        let mut again = Vec::new();
        engine.write_checkpoint(&mut again);
        assert_eq!(bytes, again, "a checkpoint of a checkpoint is the same");
        assert_eq!(engine.bytes(), self.engine.bytes());
        self.engine = engine;
    }

    fn slot(&mut self, device: &str, metric: &str) -> SeriesSlot {
        let name = (device.to_owned(), metric.to_owned());
        let known = self.series.iter().position(|known| *known == name);
        SeriesSlot(known.unwrap_or_else(|| {
            self.series.push(name);
            self.series.len() - 1
        }) as u32)
    }

    fn step(&mut self, name: &str, sample: Sample) -> Vec<String> {
        if self.reborn {
            self.rebirth();
        }
        let (device, metric) = name.rsplit_once('/').unwrap();
        let place = Place {
            series: self.slot(device, metric),
            device: DeviceSlot(0),
            device_name: device,
            metric,
            unit: if metric == "t" { "°C" } else { "" },
        };
        let from = self.said.len();
        self.engine.step(&place, &sample, &mut self.said);
        self.shown(from)
    }

    /// A reading that comes when it is measured, `at` seconds from the start.
    fn at(&mut self, at: f64, name: &str, value: f64) -> Vec<String> {
        self.step(name, sample(at, value))
    }

    /// The time goes on.
    fn tick(&mut self, at: f64) -> Vec<String> {
        if self.reborn {
            self.rebirth();
        }
        let from = self.said.len();
        self.engine.tick(time(at), &mut self.said);
        self.shown(from)
    }

    fn replace(&mut self, rules: Arc<Rules>) -> Vec<String> {
        let from = self.said.len();
        self.engine.replace(rules, &mut self.said);
        self.shown(from)
    }

    fn forget(&mut self, name: &str) {
        let (device, metric) = name.rsplit_once('/').unwrap();
        let series = self.slot(device, metric);
        self.engine.forget(&Place {
            series,
            device: DeviceSlot(0),
            device_name: device,
            metric,
            unit: "",
        });
    }

    /// When it wants to be told the time, in seconds from the start.
    fn due(&mut self) -> Option<f64> {
        let due = self.engine.poll_timeout()?;
        Some((due - START) as f64 / 1e6)
    }

    fn waiting(&self) -> Vec<String> {
        {
            let waiting = self.engine.tallied().filter(|tally| tally.judged == 0);
            waiting.map(|tally| tally.name.to_owned()).collect()
        }
    }

    fn shown(&self, from: usize) -> Vec<String> {
        self.said[from..].iter().map(show).collect()
    }
}

fn time(at: f64) -> i64 {
    START + (at * 1e6).round() as i64
}

fn sample(at: f64, value: f64) -> Sample {
    Sample {
        event_time: time(at),
        received_time: time(at),
        value,
        late: false,
        trusted: true,
    }
}

/// `+rule device/metric @event time: text`, with what stands beside.
fn show(event: &RuleEvent) -> String {
    let seconds = |time: i64| (time - START) as f64 / 1e6;
    let mut line = match event.change {
        RuleChange::Raised => String::from("+"),
        RuleChange::Cleared => String::from("-"),
    };
    let RuleEvent {
        rule,
        device,
        metric,
        event_time,
        text,
        ..
    } = event;
    line += &format!("{rule} {device}/{metric} @{}", seconds(*event_time));
    if let Some((from, to)) = event.window {
        line += &format!(" [{}..{}]", seconds(from), seconds(to));
    }
    if event.late {
        line += " late";
    }
    format!("{line}: {text}")
}

/// Nothing.
const NONE: [&str; 0] = [];
