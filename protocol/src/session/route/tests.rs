//! The table of ways, and lists of aggregators of which some are not there.

use super::*;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

fn route(endpoints: usize) -> Route {
    Route::new(endpoints, RouteTimes::default(), 0)
}

/// Fails a try at once, with a pause of a second.
fn fail(route: &mut Route, now: i64) -> usize {
    let RouteStep::Dial(at) = route.poll(now) else {
        panic!("nobody is dialled at {now}: {route:?}");
    };
    assert_eq!(route.poll(now), RouteStep::Wait, "said once");
    route.on_failed(now, SECOND).unwrap();
    at
}

#[test]
fn one_that_is_alone_is_dialled_for_ever() {
    let mut route = route(1);
    for now in 0..200 {
        assert_eq!(fail(&mut route, now * SECOND), 0);
        assert_eq!(route.poll(now * SECOND), RouteStep::Wait);
        assert_eq!(route.poll_timeout(), Some((now + 1) * SECOND));
    }
    assert_eq!(route.failures(), 200);
    route.poll(200 * SECOND);
    route.on_welcomed(200 * SECOND).unwrap();
    assert_eq!((route.state(), route.failures()), (RouteState::Home, 200));
    // Only what is taken shows that it is of use.
    route.on_progress(200 * SECOND);
    assert_eq!(route.failures(), 0);
    assert_eq!(
        (route.poll(i64::MAX), route.poll_timeout()),
        (RouteStep::Wait, None)
    );
}

#[test]
fn another_is_tried_after_a_minute_of_silence_and_each_once_before_a_pause() {
    let mut route = route(3);
    route.poll(0);
    route.on_welcomed(0).unwrap();
    route.on_progress(1);
    // An hour later, and a minute of silence counts from here.
    let lost = 3_600 * SECOND;
    route.on_lost(lost, 0).unwrap();
    for second in 0..60 {
        assert_eq!(fail(&mut route, lost + second * SECOND), 0);
    }
    let due = lost + 60 * SECOND;
    assert_eq!([(); 3].map(|()| fail(&mut route, due)), [0, 1, 2]);
    assert_eq!(route.poll(due), RouteStep::Wait);
    assert_eq!(fail(&mut route, due + SECOND), 0);
    assert_eq!(route.poll(due + SECOND), RouteStep::Dial(1));
    route.on_welcomed(due + SECOND).unwrap();
    assert_eq!(route.state(), RouteState::Away(1));
    route.on_progress(due + 2 * SECOND);
    // Lost there, it is tried there again first.
    route.on_lost(due + 9 * SECOND, SECOND).unwrap();
    assert_eq!(route.poll(due + 9 * SECOND), RouteStep::Wait);
    assert_eq!(fail(&mut route, due + 10 * SECOND), 1);
    assert_eq!(fail(&mut route, due + 11 * SECOND), 1);
}

#[test]
fn home_is_looked_for_beside_the_session_that_stands() {
    let mut route = route(2);
    let minute = 60 * SECOND;
    assert_eq!(fail(&mut route, minute), 0);
    assert_eq!(route.poll(minute), RouteStep::Dial(1));
    route.on_welcomed(minute).unwrap();
    let [back, later, at_last] = [1, 2, 3].map(|n| minute + n * 600 * SECOND);
    route.on_progress(back - 1);
    assert_eq!(
        (route.poll(back - 1), route.poll_timeout()),
        (RouteStep::Wait, Some(back))
    );
    assert_eq!(
        (route.poll(back), route.poll(back)),
        (RouteStep::Probe, RouteStep::Wait)
    );
    route.on_failed(back, SECOND).unwrap();
    assert_eq!(route.state(), RouteState::Away(1));
    route.on_progress(later);
    assert_eq!(
        (route.poll(later - 1), route.poll(later)),
        (RouteStep::Wait, RouteStep::Probe)
    );
    // The session breaks meanwhile: the first is being dialled as it is, and nobody else is.
    route.on_lost(later, 0).unwrap();
    assert_eq!(route.state(), RouteState::Dialling(0));
    assert_eq!(
        (route.poll(later), route.poll_timeout()),
        (RouteStep::Wait, None)
    );
    let mut back_home = route.clone();
    back_home.on_welcomed(later).unwrap();
    assert_eq!(back_home.state(), RouteState::Home);
    // It does not answer: back to where it was, at once.
    route.on_failed(later, SECOND).unwrap();
    assert_eq!(route.poll(later), RouteStep::Dial(1));
    route.on_welcomed(later).unwrap();
    route.on_progress(at_last);
    assert_eq!(route.poll(at_last), RouteStep::Probe);
    route.on_welcomed(at_last).unwrap();
    assert_eq!(route.state(), RouteState::Home);
}

/// The first welcomes, and takes nothing: it has no room.
#[test]
fn one_that_takes_nothing_is_left_after_a_minute() {
    let mut route = route(2);
    route.poll(0);
    route.on_welcomed(0).unwrap();
    let minute = 60 * SECOND;
    assert_eq!(
        (route.poll(minute - 1), route.poll_timeout()),
        (RouteStep::Wait, Some(minute))
    );
    let mut takes = route.clone();
    takes.on_progress(minute - 1);
    assert_eq!(takes.poll(minute), RouteStep::Wait);
    assert_eq!(route.poll(minute), RouteStep::Leave);
    route.on_lost(minute, SECOND).unwrap();
    assert_eq!(route.poll(minute), RouteStep::Dial(1));
    // The other has its minute, too, and then there is a pause.
    route.on_welcomed(minute).unwrap();
    assert_eq!(route.poll(2 * minute - 1), RouteStep::Wait);
    assert_eq!(route.poll(2 * minute), RouteStep::Leave);
    route.on_lost(2 * minute, SECOND).unwrap();
    assert_eq!(route.poll(2 * minute), RouteStep::Wait);
    assert_eq!(route.poll(2 * minute + SECOND), RouteStep::Dial(0));
    // Who has only one stays with it.
    let mut alone = Route::new(1, RouteTimes::default(), 0);
    alone.poll(0);
    alone.on_welcomed(0).unwrap();
    assert_eq!(
        (alone.poll(9 * minute), alone.poll_timeout()),
        (RouteStep::Wait, None)
    );
}

/// The first dies twenty seconds after each Welcome, and acknowledges nothing.
#[test]
fn one_that_dies_before_it_takes_anything_is_left_after_a_minute() {
    let mut route = route(2);
    for at in [0, 20, 40] {
        assert_eq!(route.poll(at * SECOND), RouteStep::Dial(0));
        route.on_welcomed(at * SECOND).unwrap();
        route.on_lost((at + 20) * SECOND, 0).unwrap();
    }
    assert_eq!(route.failures(), 3);
    assert_eq!(route.poll(60 * SECOND), RouteStep::Dial(1));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut route = route(2);
    let before = route.clone();
    assert!(route.on_lost(1, 0).is_err());
    assert_eq!(route, before);
    route.poll(0);
    route.on_welcomed(0).unwrap();
    let before = route.clone();
    assert!(route.on_welcomed(1).is_err() && route.on_failed(1, 0).is_err());
    assert_eq!(route, before);
}

proptest! {
    /// As long as one of the list is there, it is found; and with home there, home.
    #[test]
    fn whoever_is_there_is_found(
        endpoints in 1usize..=ENDPOINTS_MAX,
        up in any::<[bool; ENDPOINTS_MAX]>(),
        losses in proptest::collection::vec(0i64..400, 0..6),
    ) {
        let mut route = route(endpoints);
        let is_up = |at: usize| up.get(at).copied().unwrap_or(false);
        let best = (0..endpoints).any(is_up);
        let mut losses = losses.into_iter();
        let mut loss = losses.next();
        for second in 0..3_000 {
            let now = second * SECOND;
            let session = !matches!(route.state(), RouteState::Dialling(_));
            if session {
                route.on_progress(now);
            }
            if session && loss.is_some_and(|at| at <= second) {
                route.on_lost(now, 0).unwrap();
                loss = losses.next().map(|after| second + after);
            }
            let dialled = match route.poll(now) {
                RouteStep::Dial(at) => at,
                RouteStep::Probe => 0,
                RouteStep::Wait => continue,
                RouteStep::Leave => panic!("all that is sent is taken"),
            };
            match is_up(dialled) {
                true => route.on_welcomed(now).unwrap(),
                false => route.on_failed(now, SECOND).unwrap(),
            }
        }
        match route.state() {
            RouteState::Home => prop_assert!(is_up(0)),
            RouteState::Away(at) | RouteState::Probing(at) => {
                prop_assert!(is_up(at) && !is_up(0));
            }
            RouteState::Dialling(_) => prop_assert!(!best),
        }
    }
}

#[test]
fn what_moves_is_waited_for_and_is_nothing_that_was_taken() {
    let mut route = Route::new(2, RouteTimes::default(), 0);
    assert_eq!(route.poll(0), RouteStep::Dial(0));
    route.on_welcomed(0).unwrap();
    let later = 3 * FAILOVER_AFTER_US;
    for now in (0..later).step_by(1_000_000) {
        route.on_movement(now);
        assert_eq!(route.poll(now), RouteStep::Wait);
    }
    // The link breaks before anything was taken: the next of the list is tried.
    route.on_lost(later, 0).unwrap();
    assert_eq!(route.poll(later), RouteStep::Dial(1));
}
