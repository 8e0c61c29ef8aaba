//! What stands, for people: all of it, and the one that somebody names. Asked of the judging stage
//! while it runs; it changes nothing.

use super::super::Judge;
use super::{Of, Standings};
use crate::alert::{AlertId, AlertState};
use std::cmp::Reverse;
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

/// Something that is asked about what stands.
#[derive(Debug)]
pub enum StandsAsk {
    /// All of them, in so many bytes.
    List(usize, oneshot::Sender<Stands>),
    /// The one whose id begins so.
    Find(String, oneshot::Sender<Found>),
}

impl StandsAsk {
    /// Answers; who asked may have gone.
    pub fn answer(self, judge: &Judge) {
        let standings = &judge.series.standings;
        match self {
            Self::List(bytes, tell) => {
                let _ = tell.send(standings.list(bytes));
            }
            Self::Find(begins, tell) => {
                let _ = tell.send(standings.find(&begins));
            }
        }
    }
}

impl Standings {
    fn list(&self, bytes_max: usize) -> Stands {
        let mut all: Vec<&Of> = self.by_topic.values().flatten().collect();
        all.sort_by_cached_key(|of| {
            let standing = &of.standing;
            let received = standing.field("received_time").to_owned();
            Reverse((standing.severity(), received))
        });
        let mut stands = Stands::default();
        let mut bytes = 0;
        for of in all {
            // In an answer each quotation mark has one more byte.
            bytes += 2 * of.standing.json.len() + 8;
            match bytes <= bytes_max {
                true => stands.alerts.push(of.standing.json.to_string()),
                false => stands.more += 1,
            }
        }
        stands
    }

    fn find(&self, begins: &str) -> Found {
        let all = self.by_topic.values().flatten();
        let mut found = all.filter(|of| of.standing.id.to_string().starts_with(begins));
        match (found.next(), found.count()) {
            (None, _) => Found::None,
            (Some(of), 0) => Found::One(of.standing.id, of.standing.is(AlertState::Acknowledged)),
            (Some(_), more) => Found::Several(more + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

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
                score: 1.0,
                json: json.into(),
            };
            standings.raise("d", "m", standing);
        }
        standings
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
        let listed = standings.list(usize::MAX);
        assert_eq!(ids(&listed), ["4", "2", "3", "1"]);
        assert_eq!(listed.more, 0);
        let room = listed.alerts.iter().take(2).map(|json| 2 * json.len() + 8);
        let listed = standings.list(room.sum());
        assert_eq!(
            (ids(&listed), listed.more),
            (vec!["4".into(), "2".into()], 2)
        );
    }

    #[test]
    fn an_alert_is_found_by_how_its_id_begins() {
        let mut standings = standings(&[(0x11, "info", ""), (0x12, "info", "")]);
        let first = AlertId([0x11; 16]);
        assert_eq!(standings.find("111111"), Found::One(first, false));
        assert_eq!(standings.find("1"), Found::Several(2));
        assert_eq!(standings.find("131313"), Found::None);
        assert!(standings.acknowledge(first).is_some());
        assert_eq!(standings.find("111111"), Found::One(first, true));
    }
}
