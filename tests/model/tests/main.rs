//! Scopes of the model that are small enough for a build without optimisation; `.ci/run` checks
//! larger ones, and that planted bugs are found.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use tributary_model::Protocol;
use tributary_model::check::{Checked, check};
use tributary_model::scope::{Left, ONE, Scope, TWIN, TWO};

fn whole(scope: Scope) {
    let Checked {
        states,
        broken,
        missing,
        ..
    } = check(Protocol::new(scope), 2);
    assert!(broken.is_none(), "{broken:?}");
    assert_eq!(missing, Vec::<String>::new(), "{states} states");
    assert!(states > 1_000, "{states} states");
}

#[test]
fn in_every_order_of_events_a_batch_is_stored_once_and_all_drains() {
    let left = Left {
        failed_appends: 0,
        sheds: 0,
        ..ONE.left
    };
    whole(Scope { left, ..ONE });
}

#[test]
fn in_every_order_of_events_a_gap_takes_what_is_not_held() {
    let left = Left {
        agent_crashes: 0,
        site_crashes: 0,
        ..ONE.left
    };
    whole(Scope { left, ..ONE });
}

#[test]
fn in_every_order_of_events_what_a_twin_holds_is_not_taken_for_ours() {
    let left = Left {
        site_crashes: 0,
        ..TWIN.left
    };
    whole(Scope { left, ..TWIN });
}

#[test]
fn in_every_order_of_events_a_batch_in_two_journals_is_marked() {
    whole(TWO);
}
