//! Who gives way to whom.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn come(watched: &mut Watched, device: &str, metric: &str) -> Option<(String, String)> {
    if watched.touch(device, metric).is_some() {
        return None;
    }
    let gone = watched.make_room(device);
    watched.add(device, metric, Watch::new(Preset::Calm));
    gone.map(|gone| (gone.device.into(), gone.metric.into()))
}

fn written(watched: &Watched) -> Vec<u8> {
    let mut bytes = Vec::new();
    watched.write(&mut bytes);
    bytes
}

#[test]
fn a_device_with_a_million_metrics_pushes_out_nobody_elses() {
    let mut watched = Watched::new(12_000);
    let of = |i: u32| (format!("healthy{}", i / 5), format!("m{}", i % 5));
    for i in 0..5_000 {
        let (device, metric) = of(i);
        watched.add(&device, &metric, Watch::new(Preset::Calm));
    }
    for metric in 0..1_000_000_u32 {
        let gone = come(&mut watched, "chatter", &metric.to_string());
        assert!(gone.is_none_or(|(device, _)| device == "chatter"));
    }
    let all_are_there =
        |watched: &Watched| (0..5_000).all(|i| watched.series(&of(i).0, &of(i).1).is_some());
    assert!(all_are_there(&watched) && watched.len() == 12_000);
    // Who comes anew takes the place of what it has beyond half, and of nothing else.
    for i in 5_000..6_000 {
        let (device, metric) = of(i);
        let gone = come(&mut watched, &device, &metric);
        assert_eq!(gone.map(|(device, _)| device).as_deref(), Some("chatter"));
    }
    assert!(all_are_there(&watched));
    assert_eq!(written(&watched), {
        let bytes = written(&watched);
        written(&Watched::read(12_000, &mut bytes.as_slice()).unwrap())
    });
}

#[test]
fn one_of_many_pushes_out_others_up_to_its_share() {
    let mut watched = Watched::new(1_600);
    for i in 0..1_600 {
        come(&mut watched, &format!("d{i}"), "t");
    }
    let gone: Vec<_> = (0..1_000)
        .filter_map(|i| come(&mut watched, "chatter", &i.to_string()))
        .collect();
    let others = gone
        .iter()
        .filter(|(device, _)| device != "chatter")
        .count();
    assert_eq!((others, gone.len()), (1_600 / WATCHED_SHARE, 1_000));
    assert_eq!(
        gone.first().unwrap().0,
        "d0",
        "the one that was silent longest"
    );
}

proptest! {
    #[test]
    fn one_that_was_written_and_read_gives_way_as_if_it_had_not_been(
        steps in proptest::collection::vec((0u8..4, 0u8..12), 0..300),
        most in 1usize..20,
        every in 1usize..40,
        other_most in 1usize..20,
    ) {
        let (mut one, mut other) = (Watched::new(most), Watched::new(most));
        let mut newest = BTreeMap::new();
        for (i, (device, metric)) in steps.iter().enumerate() {
            let (device, metric) = (device.to_string(), metric.to_string());
            let mut gone = vec![come(&mut one, &device, &metric)];
            prop_assert_eq!(&gone, &vec![come(&mut other, &device, &metric)]);
            newest.insert((device, metric), i);
            if i == steps.len() / 2 {
                while let Some(away) = one.shrink(other_most) {
                    let same = other.shrink(other_most).unwrap();
                    prop_assert_eq!((&away.device, &away.metric), (&same.device, &same.metric));
                    gone.push(Some((away.device.into(), away.metric.into())));
                }
                prop_assert!(other.shrink(other_most).is_none());
            }
            for gone in gone.into_iter().flatten() {
                let at = newest.remove(&gone).unwrap();
                // Of one device it is always the one that was silent longest.
                let mut of_device = newest.iter().filter(|((device, _), _)| *device == gone.0);
                prop_assert!(of_device.all(|(_, other)| at < *other));
            }
            prop_assert_eq!(one.len(), newest.len());
            if i % every == 0 {
                let bytes = written(&other);
                other = Watched::read(other.most, &mut bytes.as_slice()).unwrap();
            }
            prop_assert_eq!(written(&one), written(&other));
        }
    }
}

#[test]
fn what_windows_say_gives_way_first_until_its_device_says_it() {
    let derived = || Watch {
        pace: Pace::derived(),
        ..Watch::new(Preset::Calm)
    };
    let mut watched = Watched::new(4);
    watched.add("a", "old", Watch::new(Preset::Calm));
    watched.add("a", "x", derived());
    watched.add("b", "x", derived());
    watched.add("b", "y", derived());
    let bytes = written(&watched);
    let mut watched = Watched::read(4, &mut bytes.as_slice()).unwrap();
    assert_eq!(written(&watched), bytes);
    let gone = |watched: &mut Watched, device, metric| {
        let (device, metric) = come(watched, device, metric).unwrap();
        format!("{device} {metric}")
    };
    watched.touch("a", "x");
    let (own, _) = watched.series("b", "x").unwrap();
    watched.own(own);
    assert_eq!(gone(&mut watched, "c", "1"), "b y");
    assert_eq!(gone(&mut watched, "d", "2"), "a x");
    assert_eq!(gone(&mut watched, "e", "3"), "a old");
    assert_eq!(gone(&mut watched, "f", "4"), "b x");
}
