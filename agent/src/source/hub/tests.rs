//! The hub told what to publish, and what each reader then takes.

use super::*;
use crate::limits::{
    BROKER_ALERTS_BYTES_MAX, PUBLISHING_AGGREGATES_MAX, PUBLISHING_QUEUE, READER_BYTES_MAX,
    RETAINED_BYTES_MAX, RETAINED_MAX, SUBSCRIPTION_BYTES_MAX,
};
use crate::source::access::acl::Grants;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts how often it is told.
#[derive(Default)]
struct Told(AtomicUsize);

impl Wake for Told {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Told {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const TERMS: Terms = Terms {
    qos: 1,
    id: None,
    as_published: false,
};

fn reader(hub: &Hub) -> Reader {
    hub.reader(Arc::new(Told::default()), None).unwrap()
}

fn publish(hub: &Hub, topic: &str, payload: &str, retain: bool) {
    let topic = format!("tributary/{topic}");
    let keep = if retain { Keep::Stands } else { Keep::Not };
    hub.publish(&topic, Bytes::copy_from_slice(payload.as_bytes()), keep);
}

/// What a reader takes: topic, payload, and `r` where it is marked as retained.
fn taken(reader: &Reader) -> Vec<String> {
    let next = || reader.next().unwrap();
    let texts = std::iter::from_fn(next).map(|delivery| {
        let topic = delivery.message.topic.strip_prefix("tributary/").unwrap();
        let payload = String::from_utf8_lossy(&delivery.message.payload).into_owned();
        let retain = if delivery.retain { " r" } else { "" };
        format!("{topic}={payload}{retain}")
    });
    texts.collect()
}

#[test]
fn what_is_published_goes_to_whoever_subscribed_in_order() {
    let hub = Hub::new();
    let (one, other) = (reader(&hub), reader(&hub));
    one.subscribe("tributary/alerts/#", TERMS, Present::All)
        .unwrap();
    other
        .subscribe("tributary/alerts/+/t", TERMS, Present::All)
        .unwrap();
    for number in 0..3 {
        publish(&hub, "alerts/p/t", &number.to_string(), number == 1);
        publish(&hub, "alerts/p/v", &number.to_string(), false);
    }
    let all = ["p/t=0", "p/v=0", "p/t=1", "p/v=1", "p/t=2", "p/v=2"];
    assert_eq!(taken(&one), all.map(|text| format!("alerts/{text}")));
    assert_eq!(
        taken(&other),
        ["alerts/p/t=0", "alerts/p/t=1", "alerts/p/t=2"]
    );
    drop(one);
    assert!(other.unsubscribe("tributary/alerts/+/t"));
    assert!(!other.unsubscribe("tributary/alerts/+/t"));
    publish(&hub, "alerts/p/t", "3", false);
    assert_eq!(taken(&other), [""; 0]);
    let state = hub.lock();
    assert_eq!(
        (state.filters.len(), state.waiting, state.readers.len()),
        (0, 0, 1)
    );
}

#[test]
fn the_present_state_comes_with_a_subscription_as_it_asks_for_it() {
    let hub = Hub::new();
    for (topic, payload) in [
        ("a/t", "1"),
        ("a/v", "1"),
        ("b/t", "1"),
        ("a/v", "2"),
        ("b/t", ""),
    ] {
        publish(&hub, &format!("alerts/{topic}"), payload, true);
    }
    publish(&hub, "status", "x", true);
    let reader = reader(&hub);
    let subscribe = |present| {
        reader
            .subscribe("tributary/alerts/#", TERMS, present)
            .unwrap();
        taken(&reader)
    };
    let present = ["alerts/a/t=1 r", "alerts/a/v=2 r"];
    assert_eq!(subscribe(Present::Nothing), [""; 0]);
    assert_eq!(subscribe(Present::IfNew), [""; 0], "it is there already");
    assert_eq!(subscribe(Present::All), present);
    assert_eq!(subscribe(Present::All), present, "each time");
    assert!(reader.unsubscribe("tributary/alerts/#"));
    assert_eq!(subscribe(Present::IfNew), present);
    assert_eq!(
        subscribe(Present::Since(3)),
        ["alerts/a/v=2"],
        "as if it were new"
    );
}

#[test]
fn what_is_published_meanwhile_is_not_told_twice_and_never_goes_back() {
    let hub = Hub::new();
    for number in 0..3 * RETAINED_STEP {
        publish(&hub, &format!("alerts/{number:05}/t"), "old", true);
    }
    let reader = reader(&hub);
    reader
        .subscribe("tributary/alerts/+/t", TERMS, Present::All)
        .unwrap();
    let first = reader.next().unwrap().unwrap();
    assert_eq!(&*first.message.topic, "tributary/alerts/00000/t");
    publish(&hub, "alerts/00000/t", "new", true);
    publish(&hub, "alerts/00700/t", "new", true);
    publish(&hub, "alerts/99999/t", "new", true);
    let rest = taken(&reader);
    let live = ["00000", "00700", "99999"].map(|name| format!("alerts/{name}/t=new"));
    assert_eq!(rest[..3], live, "what is new goes first");
    assert_eq!(rest.len(), 3 + 3 * RETAINED_STEP - 2);
    assert!(rest[3..].iter().all(|text| text.ends_with("=old r")));
    let state = hub.lock();
    assert!(state.readers.values().all(|entry| entry.replays.is_empty()));
}

#[test]
fn a_message_comes_once_however_many_filters_fit() {
    let hub = Hub::new();
    let reader = reader(&hub);
    for (filter, qos, id, as_published) in [
        ("tributary/alerts/#", 0, Some(7), false),
        ("tributary/alerts/a/t", 1, None, false),
        ("tributary/alerts/+/t", 0, Some(9), true),
        ("tributary/alerts/b/#", 1, Some(1), true),
    ] {
        let terms = Terms {
            qos,
            id,
            as_published,
        };
        reader.subscribe(filter, terms, Present::Nothing).unwrap();
    }
    publish(&hub, "alerts/a/t", "1", true);
    let delivery = reader.next().unwrap().unwrap();
    let mut ids = delivery.ids.clone();
    ids.sort_unstable();
    assert_eq!((delivery.qos, delivery.retain, ids), (1, true, vec![7, 9]));
    assert_eq!(taken(&reader), [""; 0]);
}

#[test]
fn a_client_sees_only_what_concerns_its_devices() {
    let hub = Hub::new();
    publish(&hub, "alerts/plant/a/t", "1", true);
    publish(&hub, "alerts/plant/b/t", "1", true);
    publish(&hub, "status", "x", true);
    let rights = Rights {
        user: "a".into(),
        client_id: "c".into(),
        grants: Arc::new(Grants::parse(&["plant/%u/#".to_owned()], true).unwrap()),
    };
    let reader = hub.reader(Arc::new(Told::default()), Some(rights)).unwrap();
    reader
        .subscribe("tributary/#", TERMS, Present::All)
        .unwrap();
    publish(&hub, "alerts/plant/b/v", "2", false);
    publish(&hub, "alerts/plant/a/v", "2", false);
    let seen = ["alerts/plant/a/v=2", "alerts/plant/a/t=1 r", "status=x r"];
    assert_eq!(taken(&reader), seen);
}

#[test]
fn a_reader_is_told_once_until_it_has_taken_everything() {
    let hub = Hub::new();
    let told = Arc::new(Told::default());
    let reader = hub.reader(told.clone(), None).unwrap();
    reader
        .subscribe("tributary/#", TERMS, Present::All)
        .unwrap();
    for _ in 0..3 {
        publish(&hub, "alerts/a/t", "1", false);
    }
    assert_eq!(told.count(), 1);
    taken(&reader);
    publish(&hub, "alerts/a/t", "1", false);
    assert_eq!(told.count(), 2);
}

/// Who never takes anything holds its bound and no more, is told of its end, and holds up nobody.
#[test]
fn a_reader_that_takes_nothing_ends_and_another_has_all() {
    let hub = Hub::new();
    let told = Arc::new(Told::default());
    let (slow, lossy, quick) = (
        hub.reader(told.clone(), None).unwrap(),
        reader(&hub),
        reader(&hub),
    );
    let terms = |qos| Terms { qos, ..TERMS };
    slow.subscribe("tributary/#", terms(1), Present::All)
        .unwrap();
    lossy
        .subscribe("tributary/#", terms(0), Present::All)
        .unwrap();
    quick
        .subscribe("tributary/#", terms(1), Present::All)
        .unwrap();
    let payload = "x".repeat(10_000);
    let count = 2 * READER_BYTES_MAX / payload.len();
    for _ in 0..count {
        publish(&hub, "alerts/a/t", &payload, false);
        assert_eq!(taken(&quick).len(), 1);
        let state = hub.lock();
        let held = state.readers.values().map(|entry| entry.queue.held_bytes());
        assert!(held.clone().all(|bytes| bytes <= READER_BYTES_MAX));
        assert_eq!(held.sum::<usize>(), state.waiting);
    }
    assert!(slow.is_over() && slow.next() == Err(TooSlow));
    assert_eq!(told.count(), 2, "of the first message, and of its end");
    assert_eq!(slow.subscriptions().1, 0, "and what it missed is known");
    let kept = taken(&lossy).len();
    assert!(kept > count / 3 && kept < count, "the newest: {kept}");
    assert!(!lossy.is_over());
}

#[test]
fn what_was_not_taken_is_known_when_a_reader_goes() {
    let hub = Hub::new();
    let first = reader(&hub);
    first
        .subscribe("tributary/alerts/+/t", TERMS, Present::All)
        .unwrap();
    assert_eq!(taken(&first), [""; 0]);
    for number in 1..=4 {
        publish(&hub, &format!("alerts/{number}/t"), "1", true);
    }
    first.next().unwrap().unwrap();
    first.next().unwrap().unwrap();
    let (subscriptions, upto) = first.subscriptions();
    assert_eq!(upto, 2);
    drop(first);
    publish(&hub, "alerts/1/t", "2", true);
    let second = reader(&hub);
    let [Subscription { filter, terms }] = &subscriptions[..] else {
        panic!("{subscriptions:?}");
    };
    second
        .subscribe(filter, *terms, Present::Since(upto))
        .unwrap();
    assert_eq!(
        second.subscriptions().1,
        upto,
        "nothing of it was taken yet"
    );
    assert_eq!(
        taken(&second),
        ["alerts/1/t=2", "alerts/3/t=1", "alerts/4/t=1"]
    );
    assert_eq!(second.subscriptions().1, hub.newest());
}

#[test]
fn subscriptions_and_readers_have_bounds() {
    let hub = Hub::new();
    let one = reader(&hub);
    let subscribe = |reader: &Reader, number: usize| {
        reader.subscribe(
            &format!("tributary/alerts/{number}"),
            TERMS,
            Present::Nothing,
        )
    };
    for number in 0..SUBSCRIPTIONS_OF_CLIENT_MAX {
        subscribe(&one, number).unwrap();
    }
    assert_eq!(subscribe(&one, 999), Err(Quota));
    assert_eq!(subscribe(&one, 0), Ok(()), "one that is there");
    one.unsubscribe("tributary/alerts/0");
    assert_eq!(subscribe(&one, 999), Ok(()));
    // Long ones, until all together are as long as they may be.
    let mut readers = Vec::new();
    let filled = 'filled: loop {
        let next = reader(&hub);
        for number in 0..SUBSCRIPTIONS_OF_CLIENT_MAX {
            let filter = format!("tributary/alerts/{number:0SUBSCRIPTION_BYTES_MAX$}");
            if next.subscribe(&filter, TERMS, Present::Nothing).is_err() {
                break 'filled readers.len();
            }
        }
        readers.push(next);
    };
    assert!(filled > 64, "{filled}");
    readers.pop();
    assert_eq!(
        subscribe(&one, 0),
        Err(Quota),
        "this one has as many as it may"
    );
    assert_eq!(
        subscribe(&reader(&hub), 0),
        Ok(()),
        "room that was given back"
    );
    drop(readers);
    let all: Vec<_> = (1..READERS_MAX).map(|_| reader(&hub)).collect();
    assert!(hub.reader(Arc::new(Told::default()), None).is_err());
    drop(all);
    assert!(hub.reader(Arc::new(Told::default()), None).is_ok());
}

#[test]
fn what_no_client_could_be_sent_is_not_published() {
    let hub = Hub::new();
    let large = "x".repeat(PUBLISHED_BYTES_MAX + 1);
    let long = format!("tributary/{}", "x".repeat(TOPIC_BYTES_MAX));
    for (topic, payload) in [
        ("tributary/alerts/+/t", "1"),
        ("tributary/alerts/#", "1"),
        ("tributary/alerts/a\0/t", "1"),
        ("tributary/", "1"),
        ("plant/a", "1"),
        ("", "1"),
        (long.as_str(), "1"),
        ("tributary/alerts/a/t", large.as_str()),
    ] {
        hub.publish(
            topic,
            Bytes::copy_from_slice(payload.as_bytes()),
            Keep::Stands,
        );
        assert_eq!(
            (hub.newest(), hub.lock().retained.len()),
            (0, 0),
            "{topic:?}"
        );
    }
    publish(&hub, "alerts/a/t", &large[1..], true);
    assert_eq!(hub.newest(), 1);
}

#[test]
fn no_more_is_retained_than_may_be() {
    let hub = Hub::new();
    for number in 0..RETAINED_MAX + 10 {
        publish(&hub, &format!("alerts/{number:06}/t"), "1", true);
    }
    let reader = reader(&hub);
    reader
        .subscribe("tributary/#", TERMS, Present::All)
        .unwrap();
    let all = taken(&reader);
    assert_eq!(
        (all.len(), all[0].as_str()),
        (RETAINED_MAX, "alerts/000010/t=1 r")
    );
}

/// Publishers and readers on threads of their own: each reader has each message, in order.
#[test]
fn any_thread_may_publish() {
    let hub = Hub::new();
    let reader = reader(&hub);
    reader
        .subscribe("tributary/alerts/#", TERMS, Present::All)
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let hub = hub.clone();
            scope.spawn(move || {
                for number in 0..500 {
                    publish(
                        &hub,
                        &format!("alerts/{thread}/t"),
                        &number.to_string(),
                        true,
                    );
                }
            });
        }
    });
    let all = taken(&reader);
    assert_eq!(all.len(), 2_000);
    for thread in 0..4 {
        let name = format!("alerts/{thread}/t=");
        let own = all.iter().filter_map(|text| text.strip_prefix(&name));
        let numbers: Vec<usize> = own.map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    }
}

/// Everything that a broker which takes now has then: topic and payload's first byte.
fn had(feed: &Feed) -> BTreeMap<String, Option<u8>> {
    let mut had = BTreeMap::new();
    while let Some(message) = feed.take() {
        let name = message.topic.strip_prefix(ALERTS).unwrap();
        had.insert(name.to_owned(), message.payload.first().copied());
    }
    had
}

#[test]
fn a_broker_is_told_all_that_is_retained_although_less_may_wait_for_it() {
    let hub = Hub::new();
    let bytes = 60_000;
    let count = RETAINED_BYTES_MAX / (bytes + 1_000);
    assert!(count * bytes > BROKER_ALERTS_BYTES_MAX * 3 / 2);
    let feed = hub.alerts(Arc::new(Told::default()));
    let alert = |number: usize, byte: u8, keep| {
        let topic = format!("{ALERTS}{number:03}");
        hub.publish(&topic, Bytes::from(vec![byte; bytes]), keep);
    };
    // It is away: more comes than may wait, and one topic ends.
    alert(0, b'1', Keep::Stands);
    hub.publish(&format!("{ALERTS}000"), Bytes::new(), Keep::Over);
    for number in 1..count {
        alert(number, b'1', Keep::Stands);
    }
    let mut all: BTreeMap<_, _> = (1..count)
        .map(|n| (format!("{n:03}"), Some(b'1')))
        .collect();
    all.insert("000".into(), None);
    assert_eq!(had(&feed), all);
    assert_eq!(had(&feed), BTreeMap::new(), "once");
    // It comes back with nothing, and what is published meanwhile does not wait for all of that.
    feed.refill();
    all.remove("000");
    let first = feed.take().unwrap();
    alert(5, b'2', Keep::Over);
    all.insert("005".into(), Some(b'2'));
    feed.put_back(&first);
    let next: Vec<_> = (0..4).map(|_| feed.take().unwrap()).collect();
    assert!(
        next.iter()
            .any(|message| &*message.topic == "tributary/alerts/005")
    );
    for message in &next {
        feed.put_back(message);
    }
    assert_eq!(had(&feed), all);
}

#[test]
fn what_is_told_once_more_comes_to_its_end_although_more_goes_all_the_time() {
    let hub = Hub::new();
    let bytes = 60_000;
    let count = RETAINED_BYTES_MAX / (bytes + 1_000);
    let alert = |number: usize, byte: u8| {
        let topic = format!("{ALERTS}{number:03}");
        hub.publish(&topic, Bytes::from(vec![byte; bytes]), Keep::Stands);
    };
    for number in 0..count {
        alert(number, b'1');
    }
    let feed = hub.alerts(Arc::new(Told::default()));
    let mut heard = BTreeMap::new();
    let mut hear = |message: Option<Arc<Published>>| {
        let message = message.unwrap();
        heard.insert(message.topic.to_string(), message.payload.first().copied());
        heard.len()
    };
    // A few topics change all the time, and the broker takes as much as comes.
    let busy = BROKER_ALERTS_BYTES_MAX / bytes + 10;
    for number in 0..busy {
        alert(number, b'2');
    }
    let mut turns = 0;
    while hear(feed.take()) < count {
        for number in [turns, turns + 1] {
            alert(number % busy, b'2');
        }
        hear(feed.take());
        turns += 1;
        assert!(turns < 4 * count, "{} of {count}", hear(feed.take()));
    }
    // And what went then is told, too.
    while let Some(message) = feed.take() {
        hear(Some(message));
    }
    let changed = heard.iter().filter(|(_, byte)| **byte == Some(b'2'));
    assert_eq!(changed.count(), busy);
}

#[test]
fn who_publishes_by_a_queue_waits_for_nobody_who_has_the_lock_and_order_stays() {
    let hub = Hub::new();
    let reader = reader(&hub);
    let all = "tributary/alerts/#";
    reader.subscribe(all, TERMS, Present::All).unwrap();
    let (publisher, dispatch) = hub.publisher();
    let publish = |publisher: &Publisher, number: usize| {
        let topic = format!("tributary/alerts/d{}/t", number % 3);
        let payload = Bytes::from(number.to_string());
        publisher.publish(&topic, payload, Keep::Stands, None);
    };
    // As if the hub were busy with others.
    let state = hub.lock();
    (0..PUBLISHING_QUEUE).for_each(|number| publish(&publisher, number));
    drop(state);
    assert_eq!(taken(&reader), [""; 0], "it is queued");
    // Twice as many as there is room for: none is lost.
    let count = 2 * PUBLISHING_QUEUE;
    let rest = std::thread::spawn(move || {
        (PUBLISHING_QUEUE..count).for_each(|number| publish(&publisher, number));
    });
    let hands_out = std::thread::spawn(|| dispatch.run(|_| {}));
    rest.join().unwrap();
    hands_out.join().unwrap();
    let expected = (0..count).map(|number| format!("alerts/d{}/t={number}", number % 3));
    assert_eq!(taken(&reader), expected.collect::<Vec<_>>());
    let present = hub.present(ALERTS);
    let newest = (count - 3..count).map(|number| Bytes::from(number.to_string()));
    let (mut present, mut newest) = (present, newest.collect::<Vec<_>>());
    present.sort();
    newest.sort();
    assert_eq!(present, newest, "and the newest of each is retained");
}

#[test]
fn alerts_are_handed_out_before_aggregates_which_are_counted_where_there_is_no_room() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let measured = |name: &str| {
            let page = recorder.handle().render();
            let mut lines = page.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let waiting = |lane: &str| {
            let name = format!("tributary_agent_publishing_queue{{lane=\"{lane}\"}}");
            measured(&name).unwrap()
        };
        let hub = Hub::new();
        let reader = reader(&hub);
        let terms = Terms { qos: 0, ..TERMS };
        let all = "tributary/#";
        reader.subscribe(all, terms, Present::All).unwrap();
        let (publisher, dispatch) = hub.publisher();
        let aggregate = |number: usize| {
            let topic = format!("{AGGREGATES}minute/d/t");
            let payload = Bytes::from(number.to_string());
            publisher.publish(&topic, payload, Keep::Not, None);
        };
        (0..PUBLISHING_AGGREGATES_MAX + 3).for_each(aggregate);
        for (name, received) in [("a", Some(1)), ("b", None), ("c", Some(3))] {
            let topic = format!("{ALERTS}{name}");
            publisher.publish(&topic, Bytes::from_static(b"x"), Keep::Stands, received);
        }
        let unpublished = measured("tributary_agent_unpublished_aggregates_total ");
        assert_eq!(unpublished.as_deref(), Some("3"));
        let most = PUBLISHING_AGGREGATES_MAX.to_string();
        assert_eq!(
            (waiting("alerts"), waiting("aggregates")),
            ("3".into(), most)
        );
        drop(publisher);
        // What is told was handed out.
        let heard = std::sync::Mutex::new(Vec::new());
        dispatch.run(|received| heard.lock().unwrap().push((received, hub.newest())));
        assert_eq!(heard.into_inner().unwrap(), [(1, 1), (3, 3)]);
        let first: Vec<_> = taken(&reader).into_iter().take(4).collect();
        let expected = [
            "alerts/a=x",
            "alerts/b=x",
            "alerts/c=x",
            "aggregates/minute/d/t=0",
        ];
        assert_eq!(first, expected);
        assert_eq!(
            (waiting("alerts"), waiting("aggregates")),
            ("0".into(), "0".into())
        );
    });
}

/// Neither end waits for one that is gone.
#[test]
fn who_publishes_goes_on_when_nobody_hands_out_any_more() {
    let (publisher, dispatch) = Hub::new().publisher();
    let publishes = std::thread::spawn(move || {
        for _ in 0..2 * PUBLISHING_QUEUE {
            publisher.publish("tributary/alerts/a", Bytes::new(), Keep::Over, None);
        }
    });
    drop(dispatch);
    publishes.join().unwrap();
}

/// Finds the hub's lock free, or is never told.
struct Looks(Hub, AtomicUsize);

impl Wake for Looks {
    fn wake(&self) {
        drop(self.0.0.state.try_lock().unwrap());
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_is_told_finds_the_hub_free() {
    let hub = Hub::new();
    let looks = Arc::new(Looks(hub.clone(), AtomicUsize::new(0)));
    let reader = hub.reader(looks.clone(), None).unwrap();
    let all = "tributary/alerts/#";
    reader.subscribe(all, TERMS, Present::All).unwrap();
    let feed = hub.alerts(looks.clone());
    publish(&hub, "alerts/p/t", "1", true);
    assert_eq!(looks.1.load(Ordering::Relaxed), 2);
    drop(feed);
}
