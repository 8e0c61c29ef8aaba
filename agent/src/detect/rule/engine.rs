//! The rules at work: which states a reading goes to, what time does to them, and what happens to
//! them when rules change or series are forgotten.
//!
//! Time in it is steady: that of its [samples](Sample::received_time) and ticks is received time
//! without the jumps of the gateway's clock, and what it says is by that clock again.
//!
//! Everything is a function of the calls in their order. Whatever has come due by the time a
//! reading was received is said before the reading is looked at, so that it does not matter whether
//! somebody called [`tick`](RuleEngine::tick) in between.

use super::channel::{Bound, Channel, Feed};
use super::due::{Due, NEVER};
use super::event::{RuleCounts, RuleEvent, RuleTally, ended, say};
use super::state::State;
use super::{Rule, Rules};
use crate::detect::sample::{Place, Sample, SeriesSlot};
use crate::detect::watched::{Slab, Subject};
use crate::limits::RULE_STATE_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many states a rule has, and how many of them could be judged.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Tally {
    states: u32,
    judged: u32,
}

/// Rules with what they remember.
#[derive(Clone, Debug)]
pub struct RuleEngine {
    pub(super) rules: Arc<Rules>,
    pub(super) now: i64,
    /// What the gateway's clock says at steady time 0.
    pub(super) zero: i64,
    slots: Vec<Bound>,
    pub(super) channels: Slab<Channel>,
    /// Channels by their subjects.
    pub(super) names: BTreeMap<Arc<str>, u32>,
    pub(super) states: Slab<State>,
    /// For each rule: its states of several series together, by their subjects.
    pub(super) joint: Vec<BTreeMap<Arc<str>, u32>>,
    due: Due,
    /// Channels that are kept although they were forgotten, longest first.
    forgotten: BTreeMap<u64, u32>,
    /// The last number given to a channel, or to one that was forgotten.
    pub(super) serial: u64,
    tallies: Vec<Tally>,
    bytes: usize,
    /// How often room was made, or less of it was needed: since then, what was refused still is.
    pub(super) made_room: u64,
    counts: RuleCounts,
}

impl RuleEngine {
    /// Rules that have seen nothing.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            now: i64::MIN,
            zero: 0,
            slots: Vec::new(),
            channels: Slab::new(),
            names: BTreeMap::new(),
            states: Slab::new(),
            joint: vec![BTreeMap::new(); rules.len()],
            due: Due::default(),
            forgotten: BTreeMap::new(),
            serial: 0,
            tallies: vec![Tally::default(); rules.len()],
            bytes: 0,
            made_room: 0,
            counts: RuleCounts::default(),
            rules,
        }
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// What was counted.
    pub fn counts(&self) -> RuleCounts {
        self.counts
    }

    /// Bytes of what is remembered: at most `RULE_STATE_BYTES_MAX`.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Series that rules watch.
    pub fn watched(&self) -> usize {
        self.channels.len()
    }

    /// Each rule, and what it is for by now.
    pub fn tallied(&self) -> impl Iterator<Item = RuleTally<'_>> {
        let tallied = self.rules.iter().zip(&self.tallies);
        tallied.map(|((_, rule), tally)| RuleTally {
            name: &rule.name,
            is_joint: rule.kind.is_joint(),
            states: tally.states,
            judged: tally.judged,
        })
    }

    /// How the gateway's clock stands to steady time, before what is received by it: it says `zero`
    /// at steady time 0. Where it was set, what was measured by it begins anew.
    pub fn clock(&mut self, zero: i64, was_set: bool) {
        self.zero = zero;
        if was_set {
            self.states
                .iter_mut()
                .for_each(|(_, state)| state.clock_was_set());
            self.enter_all();
        }
    }

    /// Judges a reading.
    pub fn step(&mut self, place: &Place<'_>, sample: &Sample, out: &mut Vec<RuleEvent>) {
        self.tick(sample.received_time, out);
        let Some(channel) = self.channel(place, out) else {
            return;
        };
        let Self {
            rules,
            channels,
            states,
            due,
            tallies,
            counts,
            bytes,
            made_room,
            zero,
            ..
        } = self;
        let Some(channel) = channels.at(channel) else {
            return;
        };
        if !sample.value.is_finite() {
            counts.not_numbers += 1;
            return;
        }
        for Feed { state, input } in &channel.feeds {
            let Some(at) = states.at_mut(*state) else {
                continue;
            };
            let Some(rule) = rules.rule(at.rule) else {
                continue;
            };
            let was_judged = at.judged;
            let mut told = [None; 2];
            at.step(rule, *input, sample, &mut |told_now| {
                if let Some(free) = told.iter_mut().find(|told| told.is_none()) {
                    *free = Some(told_now);
                }
            });
            if *place.unit != *at.unit && *place.metric == *at.subject.metric() {
                *made_room += u64::from(place.unit.len() < at.unit.len());
                *bytes = (*bytes + place.unit.len()).saturating_sub(at.unit.len());
                at.unit = place.unit.into();
            }
            if at.judged
                && !was_judged
                && let Some(tally) = tallies.get_mut(usize::from(at.rule))
            {
                tally.judged += 1;
            }
            for told in told.into_iter().flatten() {
                say(rule, at, (&told, *zero), counts, out);
            }
            let wanted = at.due(rule);
            if wanted < at.entered {
                due.put(&mut at.entered, wanted, *state);
            }
        }
        // A reading of the past may tell what has been due for a while.
        self.tick(sample.received_time, out);
    }

    /// When there may be something to say although nothing comes: steady time.
    pub fn poll_timeout(&mut self) -> Option<i64> {
        self.first_due().map(|(due, _)| due)
    }

    fn first_due(&mut self) -> Option<(i64, u32)> {
        loop {
            let (entered, place) = self.due.first()?;
            let state = self.states.at_mut(place)?;
            let wanted = self
                .rules
                .rule(state.rule)
                .map_or(NEVER, |rule| state.due(rule));
            if wanted <= entered {
                return Some((entered, place));
            }
            self.due.put(&mut state.entered, wanted, place);
        }
    }

    /// Says what has come due by `now`. Time goes on only.
    pub fn tick(&mut self, now: i64, out: &mut Vec<RuleEvent>) {
        self.now = self.now.max(now);
        let mut fired = Vec::new();
        while let Some((due, place)) = self.first_due().filter(|(due, _)| *due <= self.now) {
            let Some(state) = self.states.at_mut(place) else {
                break;
            };
            self.due.put(&mut state.entered, NEVER, place);
            fired.push((due, state.rule, state.subject.clone(), place));
        }
        // Where a state stands is no order that a restart keeps.
        fired.sort();
        for (due, _, _, place) in fired {
            let Some(state) = self.states.at_mut(place) else {
                continue;
            };
            let Some(rule) = self.rules.rule(state.rule) else {
                continue;
            };
            let mut told = None;
            state.fire(rule, due, &mut |told_now| told = Some(told_now));
            if let Some(told) = told {
                say(rule, state, (&told, self.zero), &mut self.counts, out);
            }
            let wanted = state.due(rule);
            self.due.put(&mut state.entered, wanted, place);
        }
    }

    /// The agent was away until `now`: what did not come in the meantime is no silence, and nothing
    /// held.
    pub fn resume(&mut self, now: i64) {
        self.now = self.now.max(now);
        let now = self.now;
        self.states
            .iter_mut()
            .for_each(|(_, state)| state.resume(now));
        self.enter_all();
    }

    /// Looks at when everything is due.
    fn enter_all(&mut self) {
        for (place, state) in self.states.iter_mut() {
            let wanted = self
                .rules
                .rule(state.rule)
                .map_or(NEVER, |rule| state.due(rule));
            self.due.put(&mut state.entered, wanted, place);
        }
    }

    /// A series is no longer at hand, and its slot may be another's. What is raised, and what waits
    /// for a silence, is kept by its name, until there is no room.
    pub fn forget(&mut self, place: &Place<'_>) {
        if let Some(slot) = self.slots.get_mut(place.series.0 as usize) {
            *slot = Bound::Unknown;
        }
        let key = Subject::key(place.device_name, place.metric);
        let Some(at) = self.names.get(&*key).copied() else {
            return;
        };
        let Some(channel) = self.channels.at_mut(at) else {
            return;
        };
        self.made_room += 1;
        let is_needed = |feed: &Feed| {
            let state = self.states.at(feed.state);
            state.is_some_and(|state| {
                let rule = self.rules.rule(state.rule);
                state.raised || rule.is_some_and(|rule| state.due(rule) != NEVER)
            })
        };
        if channel.feeds.iter().any(is_needed) {
            self.forgotten.remove(&channel.forgotten);
            self.serial += 1;
            channel.forgotten = self.serial;
            self.forgotten.insert(self.serial, at);
        } else {
            self.drop_channel(at, &mut Vec::new());
        }
    }

    /// Other rules hold from now on. What an unchanged rule remembers stays, a changed one begins
    /// anew; an alert of one that is gone or changed is over.
    pub fn replace(&mut self, rules: Arc<Rules>, out: &mut Vec<RuleEvent>) {
        let old = std::mem::replace(&mut self.rules, rules);
        let moved = old
            .iter()
            .map(|(_, rule)| self.rules.find(&rule.name, &rule.hash));
        let moved: Vec<Option<u16>> = moved.collect();
        let new_place = |place: u16| moved.get(usize::from(place)).copied().flatten();
        let mut gone = Vec::new();
        for (place, state) in self.states.iter_mut() {
            match new_place(state.rule) {
                Some(rule) => state.rule = rule,
                None => gone.push((state.subject.clone(), state.rule, place)),
            }
        }
        gone.sort();
        for (_, rule, place) in &gone {
            self.drop_state(*place, old.rule(*rule), out);
        }
        let mut joint = vec![BTreeMap::new(); self.rules.len()];
        for (was, states) in (0..).zip(std::mem::take(&mut self.joint)) {
            let to = new_place(was).and_then(|is| joint.get_mut(usize::from(is)));
            if let Some(to) = to {
                *to = states;
            }
        }
        self.joint = joint;
        self.tally();
        let is_new = |place: &u16| !moved.contains(&Some(*place));
        let new: Vec<u16> = self
            .rules
            .iter()
            .map(|(place, _)| place)
            .filter(is_new)
            .collect();
        self.slots.clear();
        let known: Vec<u32> = self.names.values().copied().collect();
        // All at once: what is gone leaves its place to what is new.
        let left: Vec<Vec<Feed>> = known.iter().map(|at| self.left(*at)).collect();
        for (at, left) in known.into_iter().zip(left) {
            self.rebind(at, left, &new);
        }
        self.enter_all();
    }

    /// The states of a channel that are still there.
    fn left(&self, at: u32) -> Vec<Feed> {
        let feeds = self.channels.at(at).map(|channel| channel.feeds.iter());
        let left = |feed: &&Feed| self.states.at(feed.state).is_some();
        feeds.into_iter().flatten().filter(left).copied().collect()
    }

    /// Gives a channel the states of `new` rules beside those that are left.
    fn rebind(&mut self, at: u32, left: Vec<Feed>, new: &[u16]) {
        let Some(subject) = self.channels.at(at).map(|channel| channel.subject.clone()) else {
            return;
        };
        let rules = Arc::clone(&self.rules);
        let mut feeds = left;
        for place in new {
            let rule = rules.rule(*place);
            let input = rule.and_then(|rule| rule.input(subject.device(), subject.metric()));
            let (Some(rule), Some(input)) = (rule, input) else {
                continue;
            };
            match self.state_for(*place, rule, &subject) {
                Some(state) => feeds.push(Feed { state, input }),
                None => self.counts.refused += 1,
            }
        }
        feeds.sort_by_key(|feed| self.states.at(feed.state).map(|state| state.rule));
        self.set_feeds(at, feeds.into());
    }

    fn set_feeds(&mut self, at: u32, feeds: Box<[Feed]>) {
        if feeds.is_empty() {
            self.drop_channel(at, &mut Vec::new());
        } else if let Some(channel) = self.channels.at_mut(at) {
            self.bytes -= channel.bytes();
            channel.feeds = feeds;
            self.bytes += channel.bytes();
        }
    }

    /// The channel of a series at hand, made when it is not there; `None` where no rule is for it.
    fn channel(&mut self, place: &Place<'_>, out: &mut Vec<RuleEvent>) -> Option<u32> {
        let SeriesSlot(slot) = place.series;
        let slot = slot as usize;
        let known = self.slots.get(slot).copied().unwrap_or(Bound::Unknown);
        match known {
            Bound::Free => return None,
            Bound::Refused(made_room) if made_room == self.made_room => return None,
            Bound::Channel(at, id) => {
                let channel = self.channels.at_mut(at).filter(|channel| channel.id == id);
                if let Some(channel) = channel {
                    if channel.forgotten != 0 {
                        self.forgotten.remove(&channel.forgotten);
                        channel.forgotten = 0;
                    }
                    return Some(at);
                }
            }
            Bound::Unknown | Bound::Refused(_) => {}
        }
        let bound = self.bind(place.device_name, place.metric, out);
        let is_first = !matches!(known, Bound::Refused(_));
        self.counts.refused += u64::from(is_first && matches!(bound, Bound::Refused(_)));
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Bound::Unknown);
        }
        if let Some(known) = self.slots.get_mut(slot) {
            *known = bound;
        }
        match bound {
            Bound::Channel(at, _) => Some(at),
            Bound::Unknown | Bound::Free | Bound::Refused(_) => None,
        }
    }

    fn bind(&mut self, device: &str, metric: &str, out: &mut Vec<RuleEvent>) -> Bound {
        let key = Subject::key(device, metric);
        if let Some(at) = self.names.get(&*key).copied()
            && let Some(channel) = self.channels.at_mut(at)
        {
            self.forgotten.remove(&channel.forgotten);
            channel.forgotten = 0;
            return Bound::Channel(at, channel.id);
        }
        let is_for = |(_, rule): (u16, &Rule)| rule.input(device, metric).is_some();
        if !self.rules.iter().any(is_for) {
            return Bound::Free;
        }
        loop {
            if let Some(at) = self.watch(device, metric) {
                let id = self.channels.at(at).map_or(0, |channel| channel.id);
                return Bound::Channel(at, id);
            }
            // The longest forgotten goes first.
            let Some((_, oldest)) = self.forgotten.first_key_value() else {
                return Bound::Refused(self.made_room);
            };
            self.drop_channel(*oldest, out);
            self.made_room += 1;
        }
    }

    /// Begins to watch a series, if there is room for all that its rules remember.
    pub(super) fn watch(&mut self, device: &str, metric: &str) -> Option<u32> {
        let subject = Subject::new(device, metric);
        self.serial += 1;
        let at = self.channels.add(Channel {
            subject: subject.clone(),
            feeds: Box::default(),
            id: self.serial,
            forgotten: 0,
        });
        self.names.insert(Arc::clone(subject.text()), at);
        self.bytes += self.channels.at(at).map_or(0, Channel::bytes);
        let rules = Arc::clone(&self.rules);
        let mut feeds = Vec::new();
        let joint = |engine: &Self| engine.joint.iter().map(BTreeMap::len).sum::<usize>();
        let joint_before = joint(self);
        let mut has_room = true;
        for (place, rule) in rules.iter() {
            let Some(input) = rule.input(device, metric) else {
                continue;
            };
            let Some(state) = self.state_for(place, rule, &subject) else {
                has_room = false;
                break;
            };
            feeds.push(Feed { state, input });
        }
        self.set_feeds(at, feeds.into());
        has_room &= self.bytes <= RULE_STATE_BYTES_MAX;
        if !has_room {
            self.drop_channel(at, &mut Vec::new());
            self.serial -= 1;
            return None;
        }
        // Another series of a joint state needs less.
        self.made_room += u64::from(joint(self) > joint_before);
        Some(at)
    }

    /// The state of a rule that readings of `subject` go to; `None` without room for another.
    fn state_for(&mut self, place: u16, rule: &Rule, subject: &Subject) -> Option<u32> {
        let about = match rule.kind.is_joint() {
            true => Subject::new(rule.subject_device(subject.device()), rule.metric.text()),
            false => subject.clone(),
        };
        let joint = self.joint.get(usize::from(place))?;
        if let Some(at) = joint.get(about.text()).copied() {
            if let Some(state) = self.states.at_mut(at) {
                state.feeds += 1;
            }
            return Some(at);
        }
        let mut state = State::new(place, rule, about.clone());
        state.feeds = 1;
        let bytes = state.bytes();
        if self.bytes + bytes > RULE_STATE_BYTES_MAX {
            return None;
        }
        self.bytes += bytes;
        let at = self.states.add(state);
        if rule.kind.is_joint()
            && let Some(joint) = self.joint.get_mut(usize::from(place))
        {
            joint.insert(Arc::clone(about.text()), at);
        }
        if let Some(tally) = self.tallies.get_mut(usize::from(place)) {
            tally.states += 1;
        }
        Some(at)
    }

    fn drop_channel(&mut self, at: u32, out: &mut Vec<RuleEvent>) {
        let Some(channel) = self.channels.remove(at) else {
            return;
        };
        self.bytes -= channel.bytes();
        self.names.remove(channel.subject.text());
        self.forgotten.remove(&channel.forgotten);
        let rules = Arc::clone(&self.rules);
        for feed in &channel.feeds {
            let Some(state) = self.states.at_mut(feed.state) else {
                continue;
            };
            state.feeds = state.feeds.saturating_sub(1);
            if state.feeds == 0 {
                let rule = rules.rule(state.rule);
                self.drop_state(feed.state, rule, out);
            }
        }
    }

    /// Drops a state; its alert, if one is raised, is over.
    fn drop_state(&mut self, at: u32, rule: Option<&Rule>, out: &mut Vec<RuleEvent>) {
        let Some(mut state) = self.states.remove(at) else {
            return;
        };
        self.due.put(&mut state.entered, NEVER, at);
        self.bytes -= state.bytes();
        if let Some(joint) = self.joint.get_mut(usize::from(state.rule))
            && joint.get(state.subject.text()) == Some(&at)
        {
            joint.remove(state.subject.text());
        }
        if let Some(tally) = self.tallies.get_mut(usize::from(state.rule)) {
            tally.states = tally.states.saturating_sub(1);
            tally.judged = tally.judged.saturating_sub(u32::from(state.judged));
        }
        if let (Some(rule), Some(told)) = (rule, state.end(self.now)) {
            self.counts.cleared += 1;
            let told = (&told, self.zero);
            out.push(ended(&rule.name, rule.severity, &state, told));
        }
    }

    /// Counts the states of each rule.
    pub(super) fn tally(&mut self) {
        self.tallies = vec![Tally::default(); self.rules.len()];
        for (_, state) in self.states.iter() {
            if let Some(tally) = self.tallies.get_mut(usize::from(state.rule)) {
                tally.states += 1;
                tally.judged += u32::from(state.judged);
            }
        }
    }

    /// Puts back what a checkpoint held of a channel's forgetting.
    pub(super) fn restore_forgotten(&mut self, at: u32, forgotten: u64) -> Option<()> {
        if forgotten != 0 {
            let before = self.forgotten.insert(forgotten, at);
            self.channels.at_mut(at)?.forgotten = forgotten;
            return before.is_none().then_some(());
        }
        Some(())
    }

    /// Puts back what a checkpoint held of a state.
    pub(super) fn restore_state(&mut self, at: u32, restored: State) {
        let Self {
            states,
            rules,
            due,
            bytes,
            ..
        } = self;
        let Some(state) = states.at_mut(at) else {
            return;
        };
        *bytes = (*bytes + restored.unit.len()).saturating_sub(state.unit.len());
        let (entered, feeds) = (state.entered, state.feeds);
        *state = State {
            entered,
            feeds,
            ..restored
        };
        let wanted = rules.rule(state.rule).map_or(NEVER, |rule| state.due(rule));
        due.put(&mut state.entered, wanted, at);
    }
}
