//! The lake, stopped at every step and opened again, holds every row exactly once.

use crate::made::{FiveNames, MadeFeed, batch, gap, origin};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::*;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::lake::columns::{digest, narrow};
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::file::{footer, rows};
use tributary_aggregator::lake::load::Content;
use tributary_aggregator::lake::markers::done_path;
use tributary_aggregator::lake::sink::Item;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeError, LakeHandle};
use tributary_protocol::ids::*;
use tributary_protocol::reading::Value;

const ROWS: u32 = 9;
pub const LOG: LogId = LogId([0xab; 16]);

/// A store that dies at its n-th change, before or after that change happened.
#[derive(Debug)]
pub struct Mortal {
    inner: Arc<dyn ObjectStore>,
    changes_left: AtomicI64,
    last_one_happens: AtomicBool,
}

impl Mortal {
    pub fn new(inner: Arc<dyn ObjectStore>, changes: i64, last_one_happens: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            changes_left: AtomicI64::new(changes),
            last_one_happens: AtomicBool::new(last_one_happens),
        })
    }

    /// It is well again, for so many changes.
    pub fn live_on(&self, changes: i64, last_one_happens: bool) {
        self.changes_left.store(changes, Ordering::SeqCst);
        self.last_one_happens
            .store(last_one_happens, Ordering::SeqCst);
    }

    fn dead() -> Error {
        Error::Generic {
            store: "mortal",
            source: "killed".into(),
        }
    }

    /// Whether the change happens, and whether its caller hears of it.
    fn change(&self) -> (bool, bool) {
        let left = self.changes_left.fetch_sub(1, Ordering::SeqCst);
        let happens = self.last_one_happens.load(Ordering::SeqCst);
        (left > 0 || (left == 0 && happens), left > 0)
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        let (happens, heard) = self.change();
        let done = if happens {
            self.inner.put_opts(at, what, how).await
        } else {
            Err(Self::dead())
        };
        if heard { done } else { Err(Self::dead()) }
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
        let (happens, heard) = self.change();
        if happens && heard {
            self.inner.delete_stream(which)
        } else {
            which.map(|_| Err(Self::dead())).boxed()
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

fn item(entry: u64) -> Item {
    match entry % 7 {
        3 => Item::Batch(Box::new(gap(entry))),
        5 => Item::Nothing(entry),
        6 => {
            let refused = Content::Refused {
                reason: "made so".to_owned(),
            };
            Item::Batch(Box::new((origin(entry), refused)))
        }
        _ => Item::Batch(Box::new(batch(entry, ROWS))),
    }
}

pub fn local(dir: &TempDir) -> Arc<dyn ObjectStore> {
    Arc::new(
        LocalFileSystem::new_with_prefix(dir.path())
            .unwrap()
            .with_fsync(true),
    )
}

/// One life of the lake: opens, flushes everything below `end`, ends.
pub async fn live(store: Arc<dyn ObjectStore>, dir: &TempDir, end: u64) -> Result<u64, LakeError> {
    live_at(store, Some(dir), end).await
}

pub async fn live_at(
    store: Arc<dyn ObjectStore>,
    dir: Option<&TempDir>,
    end: u64,
) -> Result<u64, LakeError> {
    let feed = Box::new(MadeFeed {
        end: Arc::new(AtomicU64::new(end)),
        make: item,
    });
    let lake_store = LakeStore::new(store, dir.map(|dir| dir.path().to_owned()), LOG);
    let (handle, requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::from_secs(3600),
    };
    let lake = Lake::open(config, lake_store, feed, Box::new(FiveNames), &handle).await?;
    let stop = CancellationToken::new();
    stop.cancel();
    let (_sender, durable) = watch::channel(end);
    lake.run(durable, requests, stop).await
}

/// Every row of the lake by identity, read back without the sink; panics on a second copy.
pub async fn read_back(store: &Arc<dyn ObjectStore>) -> BTreeMap<(i64, i32), String> {
    let mut found = BTreeMap::new();
    let listed: Vec<_> = store
        .list(Some(&Path::from("readings")))
        .try_collect()
        .await
        .unwrap();
    for object in listed {
        let path = object.location.to_string();
        let bytes = store
            .get(&object.location)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let says = footer(&path, &bytes).unwrap();
        for batch in rows(&path, &bytes).unwrap() {
            let numbers = batch
                .column_by_name("batch")
                .unwrap()
                .as_primitive::<Int64Type>();
            let places = batch
                .column_by_name("row")
                .unwrap()
                .as_primitive::<Int32Type>();
            assert_eq!(says.rows, batch.num_rows() as u64);
            assert_eq!(
                says.digest,
                digest(&batch),
                "the footer's digest is that of the rows"
            );
            for i in 0..batch.num_rows() {
                let id = (numbers.value(i), places.value(i));
                let twice = found.insert(id, text_of(&batch, i));
                assert!(twice.is_none(), "{id:?} twice, again in {path}");
            }
        }
    }
    found
}

/// Everything about a row but its identity.
fn text_of(batch: &arrow_array::RecordBatch, i: usize) -> String {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let text = |name: &str| column(name).as_string::<i32>().value(i).to_owned();
    let time = |name: &str| {
        column(name)
            .as_primitive::<TimestampMicrosecondType>()
            .value(i)
    };
    let truth = |name: &str| column(name).as_boolean().value(i);
    let value = match text("value_type").as_str() {
        "f64" => {
            let double = column("value_f64").as_primitive::<Float64Type>().value(i);
            format!("{:016x}", double.to_bits())
        }
        "f32" => {
            let double = column("value_f64").as_primitive::<Float64Type>().value(i);
            format!("{:08x}", narrow(double).to_bits())
        }
        "i64" => column("value_i64")
            .as_primitive::<Int64Type>()
            .value(i)
            .to_string(),
        "bool" => truth("value_bool").to_string(),
        _ => text("value_str"),
    };
    let unit = if column("unit").is_null(i) {
        String::new()
    } else {
        text("unit")
    };
    let seq = column("device_seq").as_primitive::<Int64Type>();
    let seq = (!seq.is_null(i)).then(|| seq.value(i));
    let flags = ["late", "clock_suspect", "maybe_repeat", "no_device_time"].map(truth);
    format!(
        "{} {} {} {unit} {} {} {value} {seq:?} {flags:?} {}",
        text("tenant"),
        text("device"),
        text("metric"),
        time("event_time"),
        time("received_time"),
        column("quality").as_primitive::<Int32Type>().value(i),
    )
}

/// What must be there of the entries below `end`.
pub fn expected(end: u64) -> BTreeMap<(i64, i32), String> {
    let mut all = BTreeMap::new();
    for entry in 0..end {
        let Item::Batch(made) = item(entry) else {
            continue;
        };
        let Content::Readings(readings) = made.1 else {
            continue;
        };
        for (place, row) in readings.rows().iter().enumerate() {
            let value = match readings.value(row) {
                Value::F64(x) => format!("{:016x}", x.to_bits()),
                Value::F32(x) => format!("{:08x}", x.to_bits()),
                Value::I64(x) => x.to_string(),
                Value::Bool(x) => x.to_string(),
                Value::Str(x) => x.to_owned(),
            };
            let meta = row.meta;
            let flags = [1, 2, 4, 8].map(|bit| meta.flags.0 & bit != 0);
            let (device, unit) = (9 - row.series.0, if row.series.0 == 0 { "Pa" } else { "" });
            let text = format!(
                "acme pump-{device} state {unit} {} {} {value} {:?} {flags:?} {}",
                meta.event_time, meta.received_time, meta.device_seq, meta.quality
            );
            all.insert((entry as i64, place as i32), text);
        }
    }
    all
}

#[tokio::test]
async fn killed_at_every_step_with_another_end_each_time_every_row_is_there_once() {
    let mut steps_that_killed = 0;
    for happens in [false, true] {
        for kill_at in 0..9 {
            let dir = TempDir::new().unwrap();
            let store = local(&dir);
            live(Arc::clone(&store), &dir, 3).await.unwrap();
            let mortal = Mortal::new(Arc::clone(&store), kill_at, happens);
            steps_that_killed += u32::from(live(mortal, &dir, 11).await.is_err());
            // The next life sees more of the journal, and is killed as well.
            let mortal = Mortal::new(Arc::clone(&store), kill_at / 2, !happens);
            let _ = live(mortal, &dir, 16).await;
            assert_eq!(live(Arc::clone(&store), &dir, 22).await.unwrap(), 22);
            assert_eq!(
                read_back(&store).await,
                expected(22),
                "killed at {kill_at}, {happens}"
            );
        }
    }
    // Intent, two files of readings, one of gaps, two of what is rejected, done: seven, twice.
    assert!(steps_that_killed >= 14, "{steps_that_killed}");
}

#[tokio::test]
async fn the_same_entries_give_the_same_bytes() {
    let mut all = Vec::new();
    for _ in 0..2 {
        let dir = TempDir::new().unwrap();
        let store = local(&dir);
        live(Arc::clone(&store), &dir, 20).await.unwrap();
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for object in listed {
            let bytes = store
                .get(&object.location)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            objects.insert(object.location.to_string(), bytes);
        }
        all.push(objects);
    }
    assert!(
        all[0]
            .keys()
            .any(|path| path.starts_with("gaps/event_date=2026-11-20/event_hour=20"))
    );
    assert!(all[0].keys().any(|path| path.starts_with("rejected/")));
    assert_eq!(all[0], all[1]);
}

#[tokio::test]
async fn a_torn_file_of_the_interrupted_flush_is_replaced() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    let mortal = Mortal::new(Arc::clone(&store), 2, false);
    assert!(live(mortal, &dir, 8).await.is_err());
    let listed: Vec<_> = store
        .list(Some(&Path::from("readings")))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    store
        .put(&listed[0].location, PutPayload::from_static(b"PAR1 half"))
        .await
        .unwrap();
    live(Arc::clone(&store), &dir, 8).await.unwrap();
    assert_eq!(read_back(&store).await, expected(8));
}

#[tokio::test]
async fn a_store_elsewhere_takes_its_own_file_and_no_other() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    let mortal = Mortal::new(Arc::clone(&store), 2, false);
    assert!(live_at(mortal, None, 8).await.is_err());
    let listed: Vec<_> = store
        .list(Some(&Path::from("readings")))
        .try_collect()
        .await
        .unwrap();
    let whole = store
        .get(&listed[0].location)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    store
        .put(&listed[0].location, PutPayload::from_static(b"PAR1 half"))
        .await
        .unwrap();
    assert!(live_at(Arc::clone(&store), None, 8).await.is_err());
    store
        .put(&listed[0].location, PutPayload::from(whole))
        .await
        .unwrap();
    live_at(Arc::clone(&store), None, 8).await.unwrap();
    assert_eq!(read_back(&store).await, expected(8));
}

#[tokio::test]
async fn whoever_loses_the_intent_is_fenced() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    // Two that both see an empty lake: the first flushes after the second has opened.
    let feed = Box::new(MadeFeed {
        end: Arc::new(AtomicU64::new(0)),
        make: item,
    });
    let end = Arc::clone(&feed.end);
    let (handle, requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::from_secs(3600),
    };
    let lake_store = LakeStore::new(Arc::clone(&store), Some(dir.path().to_owned()), LOG);
    let second = Lake::open(config, lake_store, feed, Box::new(FiveNames), &handle)
        .await
        .unwrap();
    let mortal = Mortal::new(Arc::clone(&store), 1, false);
    assert!(
        live(mortal, &dir, 5).await.is_err(),
        "the first has made its intent"
    );
    end.store(9, Ordering::Release);
    let stop = CancellationToken::new();
    stop.cancel();
    let (_sender, durable) = watch::channel(9);
    let error = second.run(durable, requests, stop).await.unwrap_err();
    assert!(matches!(error, LakeError::Fenced { .. }), "{error}");
}

#[tokio::test]
async fn a_lake_ahead_of_its_journal_stops() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    live(Arc::clone(&store), &dir, 9).await.unwrap();
    let error = live(store, &dir, 4).await.unwrap_err();
    assert!(
        matches!(
            error,
            LakeError::RolledBack {
                lake: 9,
                journal: 4,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_journal_starts_at_its_own_beginning() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    live(Arc::clone(&store), &dir, 9).await.unwrap();
    let other = LakeStore::new(
        Arc::clone(&store),
        Some(dir.path().to_owned()),
        LogId([1; 16]),
    );
    assert_eq!(other.progress().await.unwrap().0.position, 0);
}

/// Flips a bit in the middle of an object.
async fn flip(store: &Arc<dyn ObjectStore>, path: &str) {
    let path = Path::from(path);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut bytes = bytes.to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    store.put(&path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn a_request_writes_what_is_durable_and_many_flushes_fold() {
    let damaged = done_path(LOG, 30, 31);
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    let feed = Box::new(MadeFeed {
        end: Arc::new(AtomicU64::new(0)),
        make: Item::Nothing,
    });
    let end = Arc::clone(&feed.end);
    let (handle, requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::from_secs(3600),
    };
    let lake_store = LakeStore::new(Arc::clone(&store), Some(dir.path().to_owned()), LOG);
    let lake = Lake::open(config, lake_store, feed, Box::new(FiveNames), &handle)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let (_sender, durable) = watch::channel(0);
    let asking = async {
        for n in 1..=300 {
            end.store(n, Ordering::Release);
            assert_eq!(handle.flush().await, Ok(n));
            if n == 40 {
                flip(&store, &damaged).await;
            }
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(lake.run(durable, requests, stop.clone()), asking);
    assert_eq!(ended.unwrap(), 300);
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(
        listed.len() < 60,
        "{} markers are left of 300 flushes",
        listed.len()
    );
    // What is damaged tells nothing, and goes into nothing.
    let names: Vec<_> = listed.iter().map(|it| it.location.clone()).collect();
    let others = [done_path(LOG, 0, 30), damaged, done_path(LOG, 31, 256)];
    for path in others {
        assert!(
            names.contains(&Path::from(path.as_str())),
            "{path}: {names:?}"
        );
    }
    let lake_store = LakeStore::new(store, None, LOG);
    assert_eq!(lake_store.progress().await.unwrap().0.position, 300);
}
