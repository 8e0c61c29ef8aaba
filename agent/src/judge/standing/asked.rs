//! What stands, for people: all of it, and the one that somebody names. The judging stage hands it
//! over a bounded piece at a time; who asked puts it in order, on another thread.

use super::super::Judge;
use super::{Standings, field, severity_of};
use crate::alert::{AlertId, AlertState};
use crate::limits::STANDING_STEP;
use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Alerts that stand, as JSON: the gravest first, of those the newest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stands {
    /// They, as many as there was room for.
    pub alerts: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// The alert that somebody names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// None that stands.
    None,
    /// This one, and whether somebody has seen it.
    One(AlertId, bool),
    /// So many.
    Several(usize),
}

/// An alert that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stood {
    id: AlertId,
    json: Arc<str>,
}

/// What stands, in no order that matters.
pub type AllStood = Vec<Stood>;

/// The way through all that stands, for somebody who asked.
#[derive(Debug)]
pub struct StandsWalk {
    tell: oneshot::Sender<AllStood>,
    stood: AllStood,
    /// The last topic that was looked at.
    after: Option<Box<str>>,
}

impl StandsWalk {
    /// The way, from its beginning.
    pub fn new(tell: oneshot::Sender<AllStood>) -> Self {
        Self {
            tell,
            stood: Vec::new(),
            after: None,
        }
    }

    /// Goes a bounded piece of it; `None` at its end, where who asked is told. Alerts that come and
    /// go meanwhile are told or not.
    pub fn step(mut self, judge: &Judge) -> Option<Self> {
        if self.tell.is_closed() {
            return None;
        }
        let standings = &judge.series.standings;
        self.after = standings.some(self.after.as_deref(), &mut self.stood);
        if self.after.is_some() {
            return Some(self);
        }
        // Who asked may have gone.
        let _ = self.tell.send(self.stood);
        None
    }
}

impl Standings {
    /// Adds those of the topics behind one, or from the first one on; the last topic, where there
    /// may be more.
    fn some(&self, after: Option<&str>, out: &mut AllStood) -> Option<Box<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let topics = self.by_topic.range::<str, _>((from, Bound::Unbounded));
        let most = out.len() + STANDING_STEP;
        for (topic, all) in topics {
            out.extend(all.iter().map(|of| Stood {
                id: of.standing.id,
                json: Arc::clone(&of.standing.json),
            }));
            if out.len() >= most {
                return Some(topic.clone());
            }
        }
        None
    }
}

/// Puts them in order, as far as `bytes_max` bytes take them.
pub fn list(stood: AllStood, bytes_max: usize) -> Stands {
    let mut all = stood;
    all.sort_by_cached_key(|stood| {
        let received = field(&stood.json, "received_time").to_owned();
        Reverse((severity_of(&stood.json), received))
    });
    let mut stands = Stands::default();
    let mut bytes = 0;
    for Stood { json, .. } in all {
        // In an answer each quotation mark has one more byte.
        bytes += 2 * json.len() + 8;
        match bytes <= bytes_max {
            true => stands.alerts.push(json.to_string()),
            false => stands.more += 1,
        }
    }
    stands
}

/// The one whose id begins so.
pub fn find(stood: &[Stood], begins: &str) -> Found {
    let mut found = stood
        .iter()
        .filter(|stood| stood.id.to_string().starts_with(begins));
    match (found.next(), found.count()) {
        (None, _) => Found::None,
        (Some(Stood { id, json }), 0) => {
            let state = field(json, "state");
            Found::One(*id, state == AlertState::Acknowledged.name())
        }
        (Some(_), more) => Found::Several(more + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;
    use crate::alert::Severity;

    fn standings(all: &[(u8, &str, &str)]) -> Standings {
        let mut standings = Standings::default();
        for (id, severity, received) in all {
            let json = format!(
                "{{\"schema\":1,\"id\":\"{id}\",\"state\":\"raised\",\"device\":\"d\",\
                 \"metric\":\",\\\"severity\\\":\\\"critical\\\"\",\"severity\":\"{severity}\",\
                 \"received_time\":\"{received}\"}}"
            );
            let standing = Standing {
                detector: format!("rule:{id}").into(),
                id: AlertId([*id; 16]),
                incident: AlertId([*id; 16]),
                severity: severity_of(&json),
                score: 1.0,
                json: json.into(),
            };
            standings.raise("d", "m", standing);
        }
        standings
    }

    fn all_of(standings: &Standings) -> AllStood {
        let (mut stood, mut after) = (Vec::new(), None);
        loop {
            let before = stood.len();
            after = standings.some(after.as_deref(), &mut stood);
            assert!(stood.len() - before <= STANDING_STEP);
            if after.is_none() {
                return stood;
            }
        }
    }

    #[test]
    fn all_that_stands_is_handed_over_in_pieces_that_have_a_bound() {
        let mut standings = Standings::default();
        let count = 3 * STANDING_STEP + 7;
        for number in 0..count as u128 {
            let standing = Standing {
                detector: "rule:a".into(),
                id: AlertId(number.to_be_bytes()),
                incident: AlertId([0; 16]),
                severity: Severity::Info,
                score: 1.0,
                json: "{}".into(),
            };
            standings.raise(&format!("d{}", number / 2), "m", standing);
        }
        let (mut stood, mut steps, mut after) = (Vec::new(), 0, None);
        loop {
            let before = stood.len();
            after = standings.some(after.as_deref(), &mut stood);
            assert!(stood.len() - before <= STANDING_STEP + 1, "two a topic");
            steps += 1;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((stood.len(), steps), (count, 4));
        let mut ids: Vec<_> = stood.iter().map(|stood| stood.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn what_stands_is_listed_gravest_first_and_newest_of_those() {
        let all = [
            (1, "info", "2026-01-04"),
            (2, "critical", "2026-01-01"),
            (3, "warning", "2026-01-03"),
            (4, "critical", "2026-01-02"),
        ];
        let standings = standings(&all);
        let ids = |stands: &Stands| {
            let ids = stands.alerts.iter().map(|json| {
                let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
                json["id"].as_str().unwrap_or_default().to_owned()
            });
            ids.collect::<Vec<_>>()
        };
        let listed = list(all_of(&standings), usize::MAX);
        assert_eq!(ids(&listed), ["4", "2", "3", "1"]);
        assert_eq!(listed.more, 0);
        let room = listed.alerts.iter().take(2).map(|json| 2 * json.len() + 8);
        let listed = list(all_of(&standings), room.sum());
        assert_eq!(
            (ids(&listed), listed.more),
            (vec!["4".into(), "2".into()], 2)
        );
    }

    #[test]
    fn an_alert_is_found_by_how_its_id_begins() {
        let mut standings = standings(&[(0x11, "info", ""), (0x12, "info", "")]);
        let first = AlertId([0x11; 16]);
        assert_eq!(
            find(&all_of(&standings), "111111"),
            Found::One(first, false)
        );
        assert_eq!(find(&all_of(&standings), "1"), Found::Several(2));
        assert_eq!(find(&all_of(&standings), "131313"), Found::None);
        assert!(standings.acknowledge(first).is_some());
        assert_eq!(find(&all_of(&standings), "111111"), Found::One(first, true));
    }
}
