//! SIGKILL at chosen steps of the agent's commits: above all between fdatasync and acknowledgement,
//! when a message is kept and its device does not know. `cargo xtask prove kills` does more of
//! them.

use tributary_tests::kills::{Kills, Outcome, run};

fn some_kills(qos: u8) {
    let what = Kills {
        synced: 30,
        others: 3,
        qos,
        seed: 20_26,
    };
    let Outcome { kills, .. } = run(what);
    assert_eq!(kills, [3, 3, 3, 30, 3]);
}

#[test]
fn kills_between_fdatasync_and_puback_lose_and_double_nothing() {
    some_kills(1);
}

#[test]
fn kills_between_fdatasync_and_pubrec_lose_and_double_nothing() {
    some_kills(2);
}
