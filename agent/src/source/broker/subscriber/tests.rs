//! Decisions of a subscription, told every time and every event.

use super::*;
use crate::source::broker::Protocol;
use crate::source::broker::subscriptions::Known;
use crate::wal::Record;

fn config() -> BrokerConfig {
    BrokerConfig {
        name: "b".into(),
        host: "broker".into(),
        port: 1883,
        topics: vec!["#".into()],
        client_id: None,
        protocol: Protocol::Auto,
        user: None,
        password_file: None,
        tls: None,
        session_expiry_s: 100,
        receive_maximum: 1_024,
        keep_alive: Duration::from_secs(15),
        packet_bytes_max: 1 << 20,
        alerts: false,
    }
}

fn subscriptions(known: Known) -> Subscriptions {
    Subscriptions::new(vec!["#".into()], 100, known)
}

struct Scene {
    core: Subscriber,
    now: Instant,
}

impl Scene {
    fn new(config: &BrokerConfig) -> Self {
        let now = Instant::now();
        let core = Subscriber::new(config, "me", subscriptions(Known::default()), now);
        Self { core, now }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn open(&mut self) -> Plan {
        match self.core.step(self.now) {
            Step::Open(plan) => plan,
            step => panic!("{step:?}"),
        }
    }

    fn connected(config: &BrokerConfig) -> Self {
        let mut scene = Self::new(config);
        scene.open();
        scene.welcome(false);
        scene
    }

    fn welcome(&mut self, session_present: bool) {
        let welcome = Welcome {
            session_present,
            ..Welcome::default()
        };
        self.core.handle_welcome(&welcome, self.now);
    }

    fn subscribe(&mut self) {
        let ask = self.core.due_ask().unwrap();
        self.core.asked(&ask, self.now);
        self.core.handle_granted(&[Granted::Qos(1)], self.now);
    }

    fn deliver(&mut self, id: u16, topic: &str, payload: &[u8]) -> Batch {
        let mut batch = Batch::new();
        let delivery = Delivery {
            topic: topic.to_owned().into(),
            payload: payload.to_vec().into(),
            properties: Vec::new(),
            packet_id: id,
            qos: u8::from(id > 0),
            dup: false,
            retain: false,
        };
        let now = Now {
            instant: self.now,
            unix_us: 7,
        };
        self.core.handle_delivery(&delivery, now, &mut batch);
        batch
    }

    fn acks(&mut self) -> Vec<(u64, u16)> {
        let mut acks = Vec::new();
        while let Some(ack) = self.core.due_ack() {
            self.core.acked();
            acks.push((ack.generation, ack.packet_id));
        }
        acks
    }

    fn broken(&mut self, cause: Cause) -> Duration {
        self.core
            .handle_broken(&Broken::new(cause, "so"), self.now, 0);
        match self.core.step(self.now) {
            Step::Wait { until, .. } => until - self.now,
            Step::Over => Duration::ZERO,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_and_all_in_the_order_of_receipt() {
    let mut scene = Scene::connected(&config());
    for (id, topic) in [(5, "a"), (3, "tributary/alerts/x"), (9, "b")] {
        scene.deliver(id, topic, b"1");
    }
    assert_eq!(scene.acks(), []);
    scene.core.handle_durable(1);
    assert_eq!(
        scene.acks(),
        [(1, 5), (1, 3)],
        "what is ours follows at once"
    );
    scene.core.handle_durable(2);
    assert_eq!(scene.acks(), [(1, 9)]);
    let tally = scene.core.take_tally();
    assert_eq!((tally.messages, tally.own_topic), (2, 1));
}

#[test]
fn what_becomes_durable_after_a_reconnect_is_not_acknowledged_there() {
    let mut scene = Scene::connected(&config());
    scene.deliver(1, "a", b"old");
    scene.broken(Cause::Closed);
    scene.core.handle_durable(1);
    assert_eq!(scene.acks(), [], "no connection");
    scene.pass(1.0);
    assert_eq!(scene.open().generation, 2);
    assert_eq!(scene.acks(), [], "not yet taken");
    scene.welcome(true);
    scene.deliver(1, "a", b"another, by the same id");
    assert_eq!(scene.acks(), []);
    scene.core.handle_durable(2);
    assert_eq!(scene.acks(), [(2, 1)]);
    assert_eq!(scene.core.take_tally().stale, 1);
}

#[test]
fn qos_0_asks_for_no_acknowledgement_and_an_end_waits_for_the_others() {
    let mut scene = Scene::connected(&config());
    scene.deliver(0, "a", b"1");
    scene.deliver(4, "a", b"2");
    scene.core.handle_stop();
    assert!(!scene.core.take_disconnect());
    let batch = scene.deliver(5, "a", b"comes too late, and again next time");
    assert!(batch.is_empty());
    scene.core.handle_durable(2);
    assert_eq!(scene.acks(), [(1, 4)]);
    assert!(scene.core.take_disconnect());
    assert!(!scene.core.take_disconnect(), "once");
    scene.core.handle_disconnected();
    assert_eq!(scene.core.step(scene.now), Step::Over);
}

#[test]
fn an_end_without_a_connection_is_at_once() {
    let mut scene = Scene::new(&config());
    scene.core.handle_stop();
    assert_eq!(scene.core.step(scene.now), Step::Over);
    let mut scene = Scene::connected(&config());
    scene.deliver(4, "a", b"2");
    scene.core.handle_stop();
    scene.broken(Cause::Closed);
    assert!(scene.core.is_over());
    let mut scene = Scene::connected(&config());
    scene.deliver(4, "a", b"2");
    scene.core.handle_log_end();
    assert!(scene.core.is_over());
}

#[test]
fn waits_grow_until_the_broker_does_something() {
    let mut scene = Scene::new(&config());
    scene.open();
    let mut words = Vec::new();
    for _ in 0..3 {
        // The least wait is the same: what grows is what it is drawn from.
        let wait = scene.broken(Cause::Unreachable);
        assert_eq!(wait, crate::limits::BROKER_BACKOFF.0);
        scene.pass(31.0);
        scene.open();
        words.extend(scene.core.take_notices());
    }
    assert_eq!(words.len(), 3, "each failure is said: {words:?}");
    assert_eq!(scene.core.problem(), Some("so"));
    scene.welcome(false);
    assert_eq!(scene.core.problem(), None);
}

#[test]
fn silence_ends_a_connection_and_a_word_does_not() {
    let mut scene = Scene::connected(&config());
    scene.subscribe();
    for _ in 0..5 {
        scene.pass(40.0);
        scene.core.handle_heard(true, scene.now);
        scene.core.handle_timeout(scene.now);
        assert_eq!(scene.core.gives_up(), None);
    }
    let at = scene.core.poll_timeout().unwrap();
    assert_eq!(at - scene.now, Duration::from_secs(45));
    scene.now = at;
    scene.core.handle_timeout(scene.now);
    assert_eq!(scene.core.gives_up().unwrap().cause, Cause::Watchdog);
}

#[test]
fn a_subscription_that_is_not_answered_ends_the_connection_though_pings_are() {
    let mut scene = Scene::connected(&config());
    let ask = scene.core.due_ask().unwrap();
    scene.core.asked(&ask, scene.now);
    assert_eq!(scene.core.due_ask(), None);
    scene.pass(29.0);
    scene.core.handle_heard(true, scene.now);
    scene.core.handle_timeout(scene.now);
    assert_eq!(scene.core.gives_up(), None);
    scene.now = scene.core.poll_timeout().unwrap();
    scene.core.handle_timeout(scene.now);
    assert_eq!(scene.core.gives_up().unwrap().cause, Cause::Watchdog);
}

#[test]
fn a_connection_that_never_comes_about_is_given_up() {
    let mut scene = Scene::new(&config());
    scene.open();
    scene.now = scene.core.poll_timeout().unwrap();
    scene.core.handle_timeout(scene.now);
    assert_eq!(scene.core.gives_up().unwrap().cause, Cause::Watchdog);
}

#[test]
fn a_broker_is_let_go_of_rather_than_held_in_memory() {
    let mut scene = Scene::connected(&config());
    scene.core.handle_held(BROKER_HELD_BYTES_MAX);
    assert_eq!(scene.core.gives_up(), None);
    scene.core.handle_held(BROKER_HELD_BYTES_MAX + 1);
    let broken = scene.core.gives_up().unwrap();
    assert_eq!(broken.cause, Cause::Room);
    scene.core.handle_broken(&broken, scene.now, 0);
    scene.pass(60.0);
    let Step::Wait { room: true, .. } = scene.core.step(scene.now) else {
        panic!("no connection before there is room")
    };
    scene.core.handle_room();
    scene.open();
}

#[test]
fn a_packet_beyond_the_limit_comes_once_and_is_kept_as_a_head() {
    let mut scene = Scene::connected(&config());
    let bytes = 3 << 20;
    scene.broken(Cause::TooLarge(bytes));
    scene.pass(1.0);
    let plan = scene.open();
    assert!(plan.packet_bytes_max as usize > bytes);
    scene.welcome(true);
    let batch = scene.deliver(1, "cam", &vec![7; bytes - 10]);
    let (kind, record) = batch.iter().next().unwrap();
    let Ok(Record::TooLarge(large)) = Record::parse(kind, record) else {
        panic!("no head")
    };
    assert_eq!(large.payload_bytes as usize, bytes - 10);
    assert_eq!(large.message.payload.len(), TOO_LARGE_HEAD_BYTES);
    scene.core.handle_durable(1);
    assert_eq!(scene.acks(), [(2, 1)]);
    scene.broken(Cause::Closed);
    scene.pass(1.0);
    assert_eq!(scene.open().packet_bytes_max, 1 << 20, "only that one");
}

#[test]
fn what_is_larger_than_a_record_and_within_the_limit_is_kept_as_a_head_too() {
    let mut scene = Scene::connected(&config());
    let whole = scene.deliver(1, "a", &vec![1; RECORD_BYTES_MAX - 22 - 1]);
    let (kind, record) = whole.iter().next().unwrap();
    assert!(matches!(
        Record::parse(kind, record),
        Ok(Record::Message(_))
    ));
    let head = scene.deliver(2, "a", &vec![1; RECORD_BYTES_MAX - 22]);
    let (kind, record) = head.iter().next().unwrap();
    assert!(matches!(
        Record::parse(kind, record),
        Ok(Record::TooLarge(_))
    ));
    assert_eq!(scene.core.take_tally().too_large, 1);
}

#[test]
fn one_that_nobody_could_hold_is_said_and_tried_no_faster() {
    let mut scene = Scene::connected(&config());
    scene.broken(Cause::TooLarge(200 << 20));
    scene.pass(1.0);
    assert_eq!(scene.open().packet_bytes_max, 1 << 20);
    let said = format!("{:?}", scene.core.take_notices());
    assert!(said.contains("remove the session at the broker"), "{said}");
}

#[test]
fn a_message_without_a_topic_ends_the_connection() {
    let mut scene = Scene::connected(&config());
    let batch = scene.deliver(1, "", b"1");
    assert!(batch.is_empty());
    assert_eq!(scene.core.gives_up().unwrap().cause, Cause::Malformed);
}

#[test]
fn a_topic_that_is_no_text_is_kept() {
    let mut scene = Scene::connected(&config());
    let mut batch = Batch::new();
    let delivery = Delivery {
        topic: (&b"plant/\xff"[..]).into(),
        payload: (&b"1"[..]).into(),
        properties: Vec::new(),
        packet_id: 1,
        qos: 1,
        dup: true,
        retain: true,
    };
    let now = Now {
        instant: scene.now,
        unix_us: 7,
    };
    scene.core.handle_delivery(&delivery, now, &mut batch);
    let (kind, record) = batch.iter().next().unwrap();
    let Ok(Record::Message(message)) = Record::parse(kind, record) else {
        panic!("no message")
    };
    assert_eq!(message.topic, "plant/\u{fffd}");
    assert!(message.broker && message.dup && message.retain && message.v5);
}

#[test]
fn a_lost_session_is_said_and_subscribed_to_anew() {
    let mut scene = Scene::connected(&config());
    scene.subscribe();
    scene.core.take_notices();
    scene.broken(Cause::Closed);
    scene.pass(1.0);
    scene.open();
    scene.welcome(false);
    assert_eq!(scene.core.take_tally().sessions_lost, 1);
    let said = format!("{:?}", scene.core.take_notices());
    assert_eq!(
        said.matches("connection lost: so; again").count(),
        1,
        "{said}"
    );
    assert!(said.contains("its session is lost"), "{said}");
    assert!(scene.core.due_ask().is_some());
}

#[test]
fn needs_that_are_not_met_are_said_with_what_follows() {
    let welcome = Welcome {
        session_present: false,
        session_expiry_s: Some(60),
        qos_max: Some(0),
        no_wildcards: true,
        no_shared: true,
        no_retained: false,
        packet_bytes_max: None,
    };
    let mut wanted = subscriptions(Known::default());
    let said = wanted.needs_not_met(&welcome).join("\n");
    for part in ["QoS 0 only", "for 60 s instead of 100", "no wildcards"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("$share"), "nobody asked for it: {said}");
    wanted.welcome(&welcome, Version::V5);
    let ask = wanted.due().unwrap();
    wanted.asked(&ask, Instant::now());
    let (changed, problems) = wanted.granted(&[Granted::Refused("NotAuthorized".into())]);
    assert!(!changed, "nothing was subscribed to");
    assert!(problems[0].contains("refuses the topics \"#\": NotAuthorized"));
    assert_eq!(wanted.known().filters, [""; 0]);
}

#[test]
fn filters_that_left_the_configuration_are_given_back_and_new_ones_asked_for() {
    let known = Known {
        session: true,
        filters: vec!["kept/#".into(), "gone/#".into()],
    };
    let wanted = vec!["kept/#".to_owned(), "new/#".to_owned()];
    let present = Welcome {
        session_present: true,
        ..Welcome::default()
    };
    let asks = |version, welcome: &Welcome| {
        let mut subscriptions = Subscriptions::new(wanted.clone(), 1, known.clone());
        assert!(subscriptions.welcome(welcome, version));
        let mut asks = Vec::new();
        while let Some(ask) = subscriptions.due() {
            subscriptions.asked(&ask, Instant::now());
            asks.push(ask);
        }
        let granted = vec![Granted::Qos(1); 2];
        subscriptions.granted(
            &granted[..asks.last().map_or(0, |ask| match ask {
                Ask::Subscribe(filters) => filters.len(),
                Ask::Unsubscribe(_) => 0,
            })],
        );
        assert_eq!(subscriptions.known().filters, wanted);
        asks
    };
    let gone = Ask::Unsubscribe("gone/#".into());
    // Each SUBSCRIBE of 3.1.1 brings the retained messages: only what is new is asked for.
    let new = Ask::Subscribe(vec!["new/#".into()]);
    assert_eq!(asks(Version::V4, &present), [gone.clone(), new]);
    let all = Ask::Subscribe(wanted.clone());
    assert_eq!(asks(Version::V5, &present), [gone, all.clone()]);
    let absent = Welcome::default();
    assert_eq!(asks(Version::V4, &absent), std::slice::from_ref(&all));
    assert_eq!(asks(Version::V5, &absent), [all]);
}
