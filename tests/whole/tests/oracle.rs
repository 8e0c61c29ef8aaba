//! The oracle is shown lakes and answers that are wrong, and says so: each of them in a run of its
//! own, of which nothing else is wrong.

use futures_util::FutureExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tributary_whole::oracle::{Causes, Invariant, Name, Oracle};
use tributary_whole::store::SimStore;

fn published(oracle: &mut Oracle, seq: i64, qos: u8) -> Name {
    let name = Name {
        agent: 0,
        device: "a0d0".to_owned(),
        metric: "m0".to_owned(),
        seq,
    };
    oracle.published(name.clone(), seq, "i64 1".to_owned(), (qos, true));
    name
}

#[test]
fn an_acknowledged_reading_that_is_nowhere_is_missed_and_no_other() {
    for (qos, told, missed) in [(1, true, true), (1, false, false), (0, false, false)] {
        let mut oracle = Oracle::new(1, Causes::default());
        let name = published(&mut oracle, 5, qos);
        if told {
            oracle.told(&name);
        }
        oracle.finish(&SimStore::new(1));
        let found = oracle.violation().map(|it| it.invariant);
        assert_eq!(found, missed.then_some(Invariant::I1), "{qos} {told}");
    }
}

#[test]
fn a_file_that_is_no_parquet_is_seen() {
    let store = SimStore::new(1);
    let path = Path::from("readings/x.parquet");
    let put = store.put(&path, PutPayload::from_static(b"PAR1 half"));
    put.now_or_never().unwrap().unwrap();
    let mut oracle = Oracle::new(1, Causes::default());
    oracle.finish(&store);
    let found = oracle.violation().unwrap();
    assert_eq!(found.invariant, Invariant::I15);
    assert!(found.what.contains("readings/x.parquet"), "{found}");
}
