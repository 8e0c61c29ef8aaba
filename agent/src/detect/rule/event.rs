//! What rules say: alerts that begin or are over, with their message filled in; and what is
//! counted.

use super::message::Facts;
use super::run::seconds;
use super::state::{State, Told, Turn};
use super::{Rule, Severity};
use std::sync::Arc;

/// What became of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "their names say it")]
pub enum RuleChange {
    Raised,
    Cleared,
}

/// An alert of a rule that begins or is over.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleEvent {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The device.
    pub device: Box<str>,
    /// The metric.
    pub metric: Box<str>,
    /// Its unit; empty when nobody said.
    pub unit: Box<str>,
    /// What happened.
    pub change: RuleChange,
    /// How bad it is.
    pub severity: Severity,
    /// The reading's value; `None` of a silence.
    pub value: Option<f64>,
    /// What was held against the limit: the value, a change a second, a difference, seconds or
    /// readings.
    pub measured: Option<f64>,
    /// The limit.
    pub limit: Option<f64>,
    /// The message, filled in: at most `ALERT_TEXT_BYTES_MAX` bytes.
    pub text: String,
    /// The reading's time, or when the time had passed: microseconds since 1970.
    pub event_time: i64,
    /// From when to when it was looked at, where that is not one reading.
    pub window: Option<(i64, i64)>,
    /// Whether the reading was late.
    pub late: bool,
}

/// What a rule is for by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleTally<'a> {
    /// The rule's name.
    pub name: &'a str,
    /// Whether it looks at several series together: then it is for devices.
    pub is_joint: bool,
    /// Series that it is for, or devices.
    pub states: u32,
    /// Of how many it could be judged: not before all came that it looks at together, and enough
    /// readings.
    pub judged: u32,
}

/// What was counted since the engine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleCounts {
    /// Alerts that were raised.
    pub raised: u64,
    /// Alerts that are over.
    pub cleared: u64,
    /// Alerts that a cool-down held back.
    pub held_back: u64,
    /// Readings of watched series that are no number.
    pub not_numbers: u64,
    /// Judgements that came to no number, of readings that are.
    pub undefined: u64,
    /// Series that no rule watches, because there was no room to remember them.
    pub refused: u64,
}

/// Counts what was told, and says it; `zero` is what the gateway's clock says at steady time 0.
pub(super) fn say(
    rule: &Rule,
    state: &State,
    (told, zero): (&Told, i64),
    counts: &mut RuleCounts,
    out: &mut Vec<RuleEvent>,
) {
    let (change, template) = match told.turn {
        Turn::Raised => (RuleChange::Raised, &rule.message),
        Turn::Cleared => (RuleChange::Cleared, &rule.message_cleared),
        Turn::HeldBack => return counts.held_back += 1,
        Turn::Undefined => return counts.undefined += 1,
    };
    match change {
        RuleChange::Raised => counts.raised += 1,
        RuleChange::Cleared => counts.cleared += 1,
    }
    let mut event = event(&rule.name, rule.severity, state, (told, zero), change);
    event.text = template.fill(&Facts {
        rule: &rule.name,
        severity: rule.severity,
        device: &event.device,
        metric: &event.metric,
        unit: &event.unit,
        value: event.value,
        measured: event.measured,
        limit: event.limit,
        duration: told
            .window
            .map(|(from, to)| seconds(to.saturating_sub(from))),
    });
    out.push(event);
}

/// That an alert is over, because its rule or its series is no longer there.
pub(super) fn ended(
    name: &Arc<str>,
    severity: Severity,
    state: &State,
    told: (&Told, i64),
) -> RuleEvent {
    let mut event = event(name, severity, state, told, RuleChange::Cleared);
    event.text = format!(
        "{}: {} is no longer watched by the rule \"{name}\"",
        event.device, event.metric
    );
    event
}

fn event(
    name: &Arc<str>,
    severity: Severity,
    state: &State,
    (told, zero): (&Told, i64),
    change: RuleChange,
) -> RuleEvent {
    // A state's time is steady where it is no event time, and what is said is neither.
    let zero = if state.clock.by_event { 0 } else { zero };
    let said = |time: i64| time.saturating_add(zero);
    let known = |number: f64| (!number.is_nan()).then_some(number);
    RuleEvent {
        rule: Arc::clone(name),
        device: state.subject.device().into(),
        metric: state.subject.metric().into(),
        unit: state.unit.clone(),
        change,
        severity,
        value: known(told.finding.value),
        measured: known(told.finding.measured),
        limit: known(told.finding.limit),
        text: String::new(),
        event_time: match told.by_clock {
            true => said(told.event_time),
            false => told.event_time,
        },
        window: told.window.map(|(from, to)| (said(from), said(to))),
        late: told.late,
    }
}
