//! An object store in memory that fails as one on a network does: a change that was not made, a
//! change that was made and is reported as failed, lists in no order. It loses nothing, and does
//! nothing else wrong.

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tributary_journal::SimDisk;
use tributary_journal::sim_disk::After;
use tributary_world::dice::Dice;

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is made, and confirmed.
    Made,
    /// It is not made.
    Refused,
    /// It is made, and its maker hears of a failure.
    Unheard,
}

/// The power of whoever writes goes at a change.
#[derive(Debug)]
struct Power {
    left: u64,
    made: bool,
    disk: SimDisk,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    refused: u32,
    unheard: u32,
    power: Option<Power>,
    changes: u64,
}

impl State {
    fn change(&mut self) -> Fate {
        self.changes += 1;
        if let Some(power) = &mut self.power {
            power.left = power.left.saturating_sub(1);
            if power.left == 0 {
                let first = !power.disk.is_off();
                power.disk.power_off(After::Between);
                return match first && power.made {
                    true => Fate::Unheard,
                    false => Fate::Refused,
                };
            }
        }
        let take = |left: &mut u32| {
            let there = *left > 0;
            *left = left.saturating_sub(1);
            there
        };
        if take(&mut self.refused) {
            return Fate::Refused;
        }
        if take(&mut self.unheard) {
            return Fate::Unheard;
        }
        Fate::Made
    }
}

/// The store. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimStore {
    inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

fn failed() -> Error {
    Error::Generic {
        store: "simulated",
        source: "a planted failure of the store".into(),
    }
}

impl SimStore {
    /// An empty store; lists are shuffled by this seed.
    pub fn new(seed: u64) -> Self {
        let state = State {
            dice: Dice::of(seed, "store", 0, 0),
            refused: 0,
            unheard: 0,
            power: None,
            changes: 0,
        };
        Self {
            inner: Arc::new(InMemory::new()),
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next changes are not made.
    pub fn refuse(&self, changes: u32) {
        self.state().refused = changes;
    }

    /// The next changes are made, and reported as failed.
    pub fn unhear(&self, changes: u32) {
        self.state().unheard = changes;
    }

    /// The power of whoever has this disk goes at the change that is so many on; it is `made`, or
    /// not, and whoever made it does not hear of it.
    pub fn power_off(&self, changes: u64, made: bool, disk: &SimDisk) {
        self.state().power = Some(Power {
            left: changes.max(1),
            made,
            disk: disk.clone(),
        });
    }

    /// Who writes is another process now.
    pub fn begin_life(&self) {
        self.state().power = None;
    }

    /// Nothing fails from now on.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.refused, state.unheard, state.power) = (0, 0, None);
    }

    /// Changes that were asked for.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Every object below `prefix`, by its path.
    pub fn objects(&self, prefix: &str) -> Vec<(String, bytes::Bytes)> {
        let prefix = Path::from(prefix);
        let list = self.inner.list(Some(&prefix)).collect::<Vec<_>>();
        let listed = list.now_or_never().expect(NEVER_WAITS);
        let mut found: Vec<(String, bytes::Bytes)> = Vec::new();
        for object in listed.into_iter().flatten() {
            let read = async {
                let got = self.inner.get_opts(&object.location, GetOptions::default());
                got.await?.bytes().await
            };
            if let Ok(bytes) = read.now_or_never().expect(NEVER_WAITS) {
                found.push((object.location.to_string(), bytes));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }
}

/// It has nothing to wait for.
pub const NEVER_WAITS: &str = "a store in memory never waits";

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        let fate = self.state().change();
        if fate == Fate::Refused {
            return Err(failed());
        }
        let put = self.inner.put_opts(at, what, how).await;
        match fate {
            Fate::Unheard => Err(failed()),
            _ => put,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, how).await
    }

    fn delete_stream(
        &self,
        which: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.state().change() {
            Fate::Refused => which.map(|_| Err(failed())).boxed(),
            Fate::Unheard => {
                let gone = self.inner.delete_stream(which);
                gone.map(|_| Err(failed())).boxed()
            }
            Fate::Made => self.inner.delete_stream(which),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let list = self.inner.list(prefix).collect::<Vec<_>>();
        let mut listed = list.now_or_never().expect(NEVER_WAITS);
        let mut state = self.state();
        for place in (1..listed.len()).rev() {
            let other = state.dice.below(place as u64 + 1) as usize;
            listed.swap(place, other);
        }
        stream::iter(listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, PutMode};

    fn put(store: &SimStore, path: &str) -> bool {
        let how = PutOptions::from(PutMode::Create);
        let what = PutPayload::from_static(b"x");
        let path = Path::from(path);
        let put = store.put_opts(&path, what, how).now_or_never().unwrap();
        put.is_ok()
    }

    fn there(store: &SimStore) -> Vec<String> {
        store
            .objects("")
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    #[test]
    fn a_refused_change_is_not_made_and_one_unheard_of_is() {
        let store = SimStore::new(1);
        store.refuse(1);
        assert!(!put(&store, "a") && there(&store).is_empty());
        store.unhear(1);
        assert!(!put(&store, "a"));
        assert_eq!(there(&store), ["a"]);
        assert!(!put(&store, "a"), "it is there already");
        assert!(put(&store, "b"));
        let all = store.delete(&Path::from("b")).now_or_never().unwrap();
        assert!(all.is_ok() && there(&store) == ["a"]);
    }

    #[test]
    fn the_power_goes_at_a_change_and_nothing_is_made_after_it() {
        for made in [false, true] {
            let (store, disk) = (SimStore::new(1), SimDisk::new(1));
            store.power_off(2, made, &disk);
            assert!(put(&store, "a") && !disk.is_off());
            assert!(!put(&store, "b") && disk.is_off());
            assert!(!put(&store, "c"));
            assert_eq!(there(&store).len(), 1 + usize::from(made));
            store.begin_life();
            assert!(put(&store, "c"));
        }
    }

    #[test]
    fn lists_have_no_order() {
        let store = SimStore::new(1);
        assert!(["a", "b", "c", "d"].iter().all(|path| put(&store, path)));
        let list = || {
            let listed = store.list(None).collect::<Vec<_>>().now_or_never().unwrap();
            let names = listed
                .into_iter()
                .map(|it| it.unwrap().location.to_string());
            names.collect::<Vec<_>>().join("")
        };
        let orders: std::collections::BTreeSet<String> = (0..40).map(|_| list()).collect();
        assert!(orders.len() > 10, "{orders:?}");
    }
}
