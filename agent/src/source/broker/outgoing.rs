//! The agent's alerts on their way to one of the user's brokers: with QoS 1, retained as they are
//! here, and of each topic the newest state and the newest of what else was said there alone while
//! the broker is away or slow. Owns no socket; what is under way when a connection ends waits
//! again.

use super::link::Welcome;
use crate::limits::BROKER_PUBLISHING_MAX;
use crate::source::hub::{Feed, Published};
use std::collections::VecDeque;
use std::sync::Arc;

/// One that was handed to the client library.
#[derive(Clone, Debug)]
struct Sent {
    message: Arc<Published>,
    /// Once it left.
    packet_id: Option<u16>,
}

/// What happened since it was last asked, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub published: u64,
    /// Publications that the broker refused, or would not take.
    pub refused: u64,
}

/// What goes to one broker; nothing without a feed.
#[derive(Default)]
pub(super) struct Outgoing {
    feed: Option<Feed>,
    sent: VecDeque<Sent>,
    /// The next one, which was not yet asked for.
    next: Option<Arc<Published>>,
    takes: Takes,
    told: bool,
    tally: Tally,
}

/// What the broker takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Takes {
    bytes_max: usize,
    qos_1: bool,
    retained: bool,
}

impl Default for Takes {
    fn default() -> Self {
        Self {
            bytes_max: usize::MAX,
            qos_1: true,
            retained: true,
        }
    }
}

impl Outgoing {
    pub(super) fn of(feed: Feed) -> Self {
        Self {
            feed: Some(feed),
            ..Self::default()
        }
    }

    /// A connection begins. A broker without a session of ours may have nothing of ours at all.
    pub(super) fn handle_welcome(&mut self, welcome: &Welcome) {
        self.takes = Takes {
            bytes_max: welcome
                .packet_bytes_max
                .map_or(usize::MAX, |max| max as usize),
            qos_1: welcome.qos_max != Some(0),
            retained: !welcome.no_retained,
        };
        if let Some(feed) = self.feed.as_ref().filter(|_| !welcome.session_present) {
            feed.refill();
        }
    }

    /// The message that may be published next, until it is [`asked`](Self::asked), and whether it
    /// is to be retained: not one that is no present state.
    pub(super) fn due(&mut self) -> Option<(&Arc<Published>, bool)> {
        if self.sent.len() >= BROKER_PUBLISHING_MAX {
            return None;
        }
        while self.next.is_none() {
            let message = self.feed.as_ref()?.take()?;
            if self.takes.qos_1
                && head_bytes(&message) + message.payload.len() <= self.takes.bytes_max
            {
                self.next = Some(message);
            } else {
                self.tally.refused += 1;
            }
        }
        let retained = self.takes.retained;
        let next = self.next.as_ref();
        next.map(|next| (next, retained && next.is_retained()))
    }

    /// The one that was due is on its way to the library.
    pub(super) fn asked(&mut self) {
        let message = self.next.take();
        self.sent.extend(message.map(|message| Sent {
            message,
            packet_id: None,
        }));
    }

    /// The library sent the oldest that had not left, with this packet id.
    pub(super) fn handle_sent(&mut self, packet_id: u16) {
        let mut sent = self.sent.iter_mut();
        if let Some(sent) = sent.find(|sent| sent.packet_id.is_none()) {
            sent.packet_id = Some(packet_id);
        }
    }

    /// The broker answered the one with this packet id. Why it refused it, where that is news.
    pub(super) fn handle_answered(
        &mut self,
        packet_id: u16,
        refused: Option<String>,
    ) -> Option<String> {
        let mut sent = self.sent.iter();
        let place = sent.position(|sent| sent.packet_id == Some(packet_id))?;
        self.sent.remove(place);
        let Some(why) = refused else {
            self.tally.published += 1;
            return None;
        };
        self.tally.refused += 1;
        let news = !std::mem::replace(&mut self.told, true);
        news.then_some(why)
    }

    /// The connection is over: whether the broker has what is under way is not known.
    pub(super) fn handle_broken(&mut self) {
        let next = self.next.take();
        let sent = self.sent.drain(..).map(|sent| sent.message);
        for message in sent.chain(next) {
            if let Some(feed) = &self.feed {
                feed.put_back(&message);
            }
        }
    }

    /// What was counted, once.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }
}

/// Bytes of a PUBLISH beside its payload, at most: fixed header, topic, packet id, no properties.
fn head_bytes(message: &Published) -> usize {
    5 + 2 + message.topic.len() + 2 + 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::source::hub::{Hub, Keep};
    use crate::source::registry::Signal;
    use bytes::Bytes;

    fn outgoing() -> (Hub, Outgoing) {
        let hub = Hub::new();
        let outgoing = Outgoing::of(hub.alerts(Arc::new(Signal::default())));
        (hub, outgoing)
    }

    fn alert(hub: &Hub, name: &str, payload: &str) {
        let topic = format!("tributary/alerts/{name}");
        hub.publish(
            &topic,
            Bytes::copy_from_slice(payload.as_bytes()),
            Keep::Stands,
        );
    }

    fn due(outgoing: &mut Outgoing) -> Option<(String, Bytes)> {
        let (due, _) = outgoing.due()?;
        let name = due.topic.strip_prefix("tributary/alerts/").unwrap();
        let due = (name.to_owned(), due.payload.clone());
        outgoing.asked();
        Some(due)
    }

    fn all(outgoing: &mut Outgoing) -> Vec<String> {
        let all = std::iter::from_fn(|| due(outgoing));
        all.map(|(name, payload)| format!("{name}={}", String::from_utf8_lossy(&payload)))
            .collect()
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_unless_it_is_old() {
        let (hub, mut outgoing) = outgoing();
        outgoing.handle_welcome(&Welcome::default());
        for name in ["a", "b", "c"] {
            alert(&hub, name, "1");
        }
        assert_eq!(all(&mut outgoing), ["a=1", "b=1", "c=1"]);
        outgoing.handle_sent(1);
        outgoing.handle_sent(2);
        assert_eq!(outgoing.handle_answered(1, None), None);
        alert(&hub, "b", "2");
        outgoing.handle_broken();
        assert_eq!(all(&mut outgoing), ["c=1", "b=2"]);
        outgoing.handle_sent(1);
        outgoing.handle_answered(1, None);
        assert!(!outgoing.is_idle());
        outgoing.handle_sent(2);
        outgoing.handle_answered(2, None);
        assert!(outgoing.is_idle());
        assert_eq!(
            outgoing.take_tally(),
            Tally {
                published: 3,
                refused: 0
            }
        );
    }

    #[test]
    fn only_so_many_are_under_way() {
        let (hub, mut outgoing) = outgoing();
        for number in 0..BROKER_PUBLISHING_MAX + 1 {
            alert(&hub, &number.to_string(), "1");
        }
        assert_eq!(all(&mut outgoing).len(), BROKER_PUBLISHING_MAX);
        outgoing.handle_sent(7);
        outgoing.handle_answered(9, None);
        assert_eq!(due(&mut outgoing), None, "an answer to nothing");
        outgoing.handle_answered(7, None);
        assert_eq!(all(&mut outgoing), [format!("{BROKER_PUBLISHING_MAX}=1")]);
    }

    #[test]
    fn what_is_no_present_state_is_not_retained_at_the_broker_either() {
        let (hub, mut outgoing) = outgoing();
        for (keep, retains) in [(Keep::Stands, true), (Keep::Not, false), (Keep::Over, true)] {
            hub.publish("tributary/alerts/a", Bytes::from_static(b"x"), keep);
            let due = outgoing.due().map(|(_, retains)| retains);
            assert_eq!(due, Some(retains), "{keep:?}");
            outgoing.asked();
        }
    }

    /// One that stands behind a graver one is told beside it, before it.
    #[test]
    fn an_alert_that_its_topic_does_not_show_goes_to_the_broker_too() {
        let (hub, mut outgoing) = outgoing();
        let say = |payload: &'static str, keep| {
            hub.publish(
                "tributary/alerts/a",
                Bytes::from_static(payload.as_bytes()),
                keep,
            );
        };
        say("graver", Keep::Stands);
        say("lesser", Keep::Not);
        say("graver again", Keep::Stands);
        let told = ["a=lesser", "a=graver again"];
        assert_eq!(all(&mut outgoing), told);
        outgoing.handle_broken();
        assert_eq!(all(&mut outgoing), told, "nobody acknowledged it");
        outgoing.handle_broken();
        outgoing.handle_welcome(&Welcome::default());
        assert_eq!(all(&mut outgoing), told, "nor with everything again");
    }

    #[test]
    fn a_broker_without_a_session_of_ours_is_told_everything_again() {
        let (hub, mut outgoing) = outgoing();
        alert(&hub, "a", "1");
        hub.publish("tributary/status", Bytes::from_static(b"x"), Keep::Stands);
        hub.publish(
            "tributary/alerts/passing",
            Bytes::from_static(b"x"),
            Keep::Not,
        );
        assert_eq!(all(&mut outgoing), ["a=1", "passing=x"], "alerts alone");
        for packet_id in [1, 2] {
            outgoing.handle_sent(packet_id);
            outgoing.handle_answered(packet_id, None);
        }
        outgoing.handle_broken();
        let kept = Welcome {
            session_present: true,
            ..Welcome::default()
        };
        outgoing.handle_welcome(&kept);
        assert_eq!(due(&mut outgoing), None);
        outgoing.handle_welcome(&Welcome::default());
        assert_eq!(all(&mut outgoing), ["a=1"]);
    }

    #[test]
    fn what_a_broker_does_not_take_is_counted_and_ends_nothing() {
        let (hub, mut outgoing) = outgoing();
        let small = Welcome {
            packet_bytes_max: Some(128),
            no_retained: true,
            ..Welcome::default()
        };
        outgoing.handle_welcome(&small);
        alert(&hub, "large", &"x".repeat(128));
        alert(&hub, "small", "1");
        let due_now = outgoing.due().map(|(due, retains)| (&*due.topic, retains));
        assert_eq!(due_now, Some(("tributary/alerts/small", false)));
        assert_eq!(all(&mut outgoing), ["small=1"]);
        outgoing.handle_sent(1);
        let why = || Some("NotAuthorized".to_owned());
        assert_eq!(outgoing.handle_answered(1, why()), why());
        alert(&hub, "small", "2");
        due(&mut outgoing).unwrap();
        outgoing.handle_sent(2);
        assert_eq!(outgoing.handle_answered(2, why()), None, "said once");
        assert_eq!(
            outgoing.take_tally(),
            Tally {
                published: 0,
                refused: 3
            }
        );
    }
}
