//! The sink `postgresql` against a real server: whatever fails, every row is there once.

use crate::made::{FiveNames, MadeFeed, batch, gap, origin};
use crate::sealed::{BUFFER, readings, series};
use crate::services::{Relay, kill_and_start, service};
use crate::uplink::{Memory, configured};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::config::{SinkConfig, Target};
use tributary_aggregator::fanout::SinkStatus;
use tributary_aggregator::fanout::courier::Pace;
use tributary_aggregator::fanout::postgres::{Postgres, PostgresConfig};
use tributary_aggregator::fanout::run::Running;
use tributary_aggregator::fanout::tap::Shared;
use tributary_aggregator::lake::load::Content;
use tributary_aggregator::lake::sink::Item;
use tributary_aggregator::start;
use tributary_protocol::ids::{BatchHash, Lane, LogId, SeriesId};
use tributary_protocol::reading::{Meta, Readings, Value};

const LOG: LogId = LogId([0xab; 16]);
const ROWS: u32 = 40;

fn item(entry: u64) -> Item {
    match entry % 7 {
        3 => Item::Batch(Box::new(gap(entry))),
        5 => Item::Nothing(entry),
        6 => {
            let reason = "made so".to_owned();
            Item::Batch(Box::new((origin(entry), Content::Refused { reason })))
        }
        _ => Item::Batch(Box::new(batch(entry, ROWS))),
    }
}

/// Held by one test at a time: one of them kills the server.
static SERVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A database of the test's own.
struct Database {
    _server: tokio::sync::MutexGuard<'static, ()>,
    client: Client,
    config: tokio_postgres::Config,
    server: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Database {
    async fn make(name: &str) -> Option<Self> {
        let url = service("POSTGRES_URL")?;
        let guard = SERVER.lock().await;
        let mut config: tokio_postgres::Config = url.parse().unwrap();
        let mut tasks = JoinSet::new();
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tasks.spawn(async { drop(connection.await) });
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        client.batch_execute(&drop).await.unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        config.dbname(name);
        let port = config.get_ports()[0];
        let client = connect(&config, &mut tasks).await;
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        Some(Self {
            _server: guard,
            client,
            config,
            server,
            _tasks: tasks,
        })
    }

    /// The configuration that goes through a relay.
    fn through(&self, address: SocketAddr) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(address.port());
        config.user(self.config.get_user().unwrap());
        config.dbname(self.config.get_dbname().unwrap());
        config
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }
}

async fn connect(config: &tokio_postgres::Config, tasks: &mut JoinSet<()>) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tasks.spawn(async { drop(connection.await) });
    client
}

fn config_of(config: &tokio_postgres::Config) -> PostgresConfig {
    PostgresConfig {
        host: "127.0.0.1".to_owned(),
        port: config.get_ports()[0],
        database: config.get_dbname().unwrap().to_owned(),
        user: config.get_user().unwrap().to_owned(),
        password_file: None,
        ca: None,
        retention_days: None,
    }
}

fn running(
    config: tokio_postgres::Config,
    make: fn(u64) -> Item,
    end: &Arc<AtomicU64>,
    rows: usize,
) -> Running<Postgres> {
    let feed = || {
        Box::new(MadeFeed {
            end: Arc::clone(end),
            make,
        })
    };
    let config = config_of(&config);
    Running {
        sink: Postgres::new(config, Box::new(FiveNames), 0),
        log: LOG,
        tap: Shared::new(feed()).tap(feed()),
        pace: Pace {
            rows,
            age_us: 50_000,
        },
        status: Arc::new(SinkStatus::new("warehouse", true)),
        random: || 0,
    }
}

/// Runs a sink until everything below `end` is there.
async fn drain(config: tokio_postgres::Config, make: fn(u64) -> Item, end: u64) -> Arc<SinkStatus> {
    let end = Arc::new(AtomicU64::new(end));
    let running = running(config, make, &end, 1_000);
    let status = Arc::clone(&running.status);
    let (sender, durable) = watch::channel(0);
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(running.run(durable, stop.clone()));
    while status.position() < end.load(Ordering::SeqCst) {
        if let Some(trouble) = status.trouble() {
            panic!("{trouble}");
        }
        tokio::task::yield_now().await;
    }
    stop.cancel();
    task.join_next().await;
    drop(sender);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_to_commits_and_killed_sinks_and_servers_double_nothing() {
    let Some(folder) = service("POSTGRES") else {
        return;
    };
    let Some(database) = Database::make("t_once").await else {
        return;
    };
    let relay = Relay::start(database.server, b"COMMIT\0").await;
    relay.every.store(3, Ordering::SeqCst);
    let entries = 1_400_u64;
    let end = Arc::new(AtomicU64::new(0));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut lives = 0;
    loop {
        let life = running(database.through(relay.address), item, &end, 400);
        let status = Arc::clone(&life.status);
        let (_sender, durable) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(life.run(durable, CancellationToken::new()));
        lives += 1;
        if lives > 20 {
            relay.every.store(0, Ordering::SeqCst);
        }
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let target = (end.load(Ordering::SeqCst) + 20 + random % 60).min(entries);
        end.store(target, Ordering::SeqCst);
        // It ends somewhere in a commit: behind an answer that was lost, or before all is there.
        let lost = relay.swallowed.load(Ordering::SeqCst);
        let is_near = || status.position() + random % 20 >= target;
        while relay.swallowed.load(Ordering::SeqCst) == lost && !is_near() {
            tokio::task::yield_now().await;
        }
        for _ in 0..random % 50_000 {
            tokio::task::yield_now().await;
        }
        if lives % 7 == 3 {
            kill_and_start(&folder);
        }
        if target == entries && lives > 20 {
            while status.position() < entries {
                tokio::task::yield_now().await;
            }
            break;
        }
    }
    assert!(
        relay.swallowed.load(Ordering::SeqCst) > 5,
        "few answers were lost"
    );
    let mut tasks = JoinSet::new();
    let client = connect(&database.config, &mut tasks).await;
    let count = async |sql: &str| -> i64 { client.query_one(sql, &[]).await.unwrap().get(0) };
    let of = |kind: fn(u64) -> bool| (0..entries).filter(|entry| kind(*entry)).count() as i64;
    let batches = of(|entry| matches!(entry % 7, 0 | 1 | 2 | 4));
    let rows = batches * i64::from(ROWS);
    assert_eq!(count("SELECT count(*) FROM tributary.readings").await, rows);
    let distinct =
        "SELECT count(DISTINCT (agent, buffer, lane, batch, \"row\")) FROM tributary.readings";
    assert_eq!(count(distinct).await, rows);
    assert_eq!(
        count("SELECT count(*) FROM tributary.gaps").await,
        of(|entry| entry % 7 == 3)
    );
    assert_eq!(
        count("SELECT count(*) FROM tributary.rejected").await,
        of(|entry| entry % 7 == 6)
    );
    let kept = "SELECT count(*) FROM tributary.batches WHERE kind = 'readings'";
    assert_eq!(count(kept).await, batches);
    assert_eq!(
        count("SELECT next FROM tributary.sink_cursor").await,
        entries as i64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_there_to_the_bit() {
    let Some(database) = Database::make("t_bits").await else {
        return;
    };
    drain(database.config.clone(), item, 14).await;
    let sql =
        "SELECT batch, \"row\", value_f64, value_i64, value_bool, value_str, quality, device_seq,
                      late, clock_suspect, maybe_repeat, no_device_time, device, metric, unit,
                      (extract(epoch FROM event_time) * 1000000)::bigint
               FROM tributary.readings WHERE batch = 8 ORDER BY \"row\"";
    let found = database.client.query(sql, &[]).await.unwrap();
    let (_, content) = batch(8, ROWS);
    let Content::Readings(readings) = content else {
        panic!()
    };
    assert_eq!(found.len(), readings.len());
    for (row, reading) in found.iter().zip(readings.rows()) {
        let (float, integer): (Option<f64>, Option<i64>) = (row.get(2), row.get(3));
        let (truth, text): (Option<bool>, Option<&str>) = (row.get(4), row.get(5));
        match readings.value(reading) {
            Value::F64(x) => assert_eq!(float.unwrap().to_bits(), x.to_bits()),
            Value::F32(x) => {
                let narrow = tributary_aggregator::lake::columns::narrow(float.unwrap());
                assert_eq!(narrow.to_bits(), x.to_bits());
            }
            Value::I64(x) => assert_eq!(integer, Some(x)),
            Value::Bool(x) => assert_eq!(truth, Some(x)),
            Value::Str(x) => assert_eq!(text, Some(x)),
        }
        assert_eq!(row.get::<_, i32>(6), reading.meta.quality);
        assert_eq!(row.get::<_, Option<i64>>(7), reading.meta.device_seq);
        let flags: [bool; 4] = std::array::from_fn(|at| row.get(8 + at));
        assert_eq!(
            flags,
            std::array::from_fn(|bit| reading.meta.flags.0 >> bit & 1 == 1)
        );
        assert_eq!(row.get::<_, i64>(15), reading.meta.event_time);
    }
}

/// A batch with a time that PostgreSQL does not have and a text that it refuses.
fn bad_item(entry: u64) -> Item {
    if entry != 4 {
        return Item::Batch(Box::new(batch(entry, ROWS)));
    }
    let mut readings = Readings::new();
    for row in 0..50 {
        let event_time = if row == 17 {
            i64::MIN + 3
        } else {
            crate::made::EPOCH_US
        };
        let meta = Meta {
            event_time,
            received_time: crate::made::EPOCH_US,
            ..Meta::default()
        };
        let text = if row == 33 { "nul \0 inside" } else { "well" };
        readings.push(SeriesId(4), meta, Value::Str(text)).unwrap();
    }
    Item::Batch(Box::new((origin(entry), Content::Readings(readings))))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_it_refuses_are_found_and_kept_with_the_reason() {
    let Some(database) = Database::make("t_refused").await else {
        return;
    };
    let status = drain_with_refusals(&database, 20).await;
    let all = 19 * i64::from(ROWS) + 48;
    assert_eq!(
        database
            .count("SELECT count(*) FROM tributary.readings")
            .await,
        all
    );
    let sql = "SELECT \"row\", reason, payload FROM tributary.rejected ORDER BY \"row\"";
    let rows = database.client.query(sql, &[]).await.unwrap();
    let found: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, [17, 33]);
    let payload: &[u8] = rows[1].get(2);
    let kept: serde_json::Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(kept["value"]["str"], "nul \0 inside");
    let report = status.report(0, 20);
    assert_eq!((report.refused_rows, report.rows), (2, all as u64));
    assert_eq!(report.trouble, None);
}

async fn drain_with_refusals(database: &Database, entries: u64) -> Arc<SinkStatus> {
    let end = Arc::new(AtomicU64::new(entries));
    let running = running(database.config.clone(), bad_item, &end, 1_000);
    let status = Arc::clone(&running.status);
    let (_sender, durable) = watch::channel(0);
    let mut task = JoinSet::new();
    task.spawn(running.run(durable, CancellationToken::new()));
    while status.position() < entries {
        tokio::task::yield_now().await;
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opened_it_later_fences_the_other() {
    let Some(database) = Database::make("t_fenced").await else {
        return;
    };
    let end = Arc::new(AtomicU64::new(10));
    let (sender, durable) = watch::channel(0);
    let mut tasks = JoinSet::new();
    let first = running(database.config.clone(), item, &end, 1_000);
    let fenced = Arc::clone(&first.status);
    tasks.spawn(first.run(durable.clone(), CancellationToken::new()));
    while fenced.position() < 10 {
        tokio::task::yield_now().await;
    }
    let second = running(database.config.clone(), item, &end, 1_000);
    let going_on = Arc::clone(&second.status);
    tasks.spawn(second.run(durable, CancellationToken::new()));
    while going_on.position() < 10 {
        tokio::task::yield_now().await;
    }
    end.store(20, Ordering::SeqCst);
    sender.send(20).unwrap();
    while going_on.position() < 20 || fenced.trouble().is_none() {
        tokio::task::yield_now().await;
    }
    let said = fenced.trouble().unwrap().to_string();
    assert!(said.contains("two aggregators"), "{said}");
    let rows = "SELECT count(*) FROM tributary.readings";
    assert_eq!(database.count(rows).await, 12 * i64::from(ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_the_server_is_said_and_mended_there() {
    let Some(database) = Database::make("t_wrong").await else {
        return;
    };
    let mut absent = database.config.clone();
    absent.dbname("t_absent");
    let said = trouble(absent, 5).await;
    assert!(
        said.contains("3D000") && said.contains("create the database"),
        "{said}"
    );
    drain(database.config.clone(), item, 5).await;
    database
        .client
        .batch_execute("DROP TABLE tributary.reading CASCADE")
        .await
        .unwrap();
    let said = trouble(database.config.clone(), 9).await;
    assert!(
        said.contains("missing: reading") && said.contains("drop the schema"),
        "{said}"
    );
}

/// What a sink says that can't get on.
async fn trouble(config: tokio_postgres::Config, end: u64) -> String {
    let end = Arc::new(AtomicU64::new(end));
    let running = running(config, item, &end, 1_000);
    let status = Arc::clone(&running.status);
    let (_sender, durable) = watch::channel(0);
    let mut task = JoinSet::new();
    task.spawn(running.run(durable, CancellationToken::new()));
    loop {
        if let Some(trouble) = status.trouble() {
            return trouble.to_string();
        }
        tokio::task::yield_now().await;
    }
}

/// A row for each of five days, the first of them far in the past, and one far in the future.
fn days_item(entry: u64) -> Item {
    let day = 24 * crate::made::HOUR_US;
    let now = tributary_aggregator::clock::wall_us();
    let mut readings = Readings::new();
    for days in [-4_000, -40, -2, -1, 0, 900] {
        let event_time = now + days * day;
        let meta = Meta {
            event_time,
            received_time: now,
            ..Meta::default()
        };
        readings.push(SeriesId(2), meta, Value::I64(days)).unwrap();
    }
    Item::Batch(Box::new((origin(entry), Content::Readings(readings))))
}

#[tokio::test(flavor = "multi_thread")]
async fn days_have_partitions_and_go_when_they_are_old() {
    let Some(database) = Database::make("t_days").await else {
        return;
    };
    drain(database.config.clone(), days_item, 2).await;
    let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tributary.reading'::regclass";
    assert_eq!(database.count(parts).await, 1 + 4);
    let others = "SELECT count(*) FROM tributary.reading_other";
    assert_eq!(database.count(others).await, 4);
    let end = Arc::new(AtomicU64::new(3));
    let mut again = running(database.config.clone(), days_item, &end, 1_000);
    let mut config = config_of(&database.config);
    config.retention_days = Some(30);
    again.sink = Postgres::new(config, Box::new(FiveNames), 0);
    let status = Arc::clone(&again.status);
    let (_sender, durable) = watch::channel(0);
    let mut task = JoinSet::new();
    task.spawn(again.run(durable, CancellationToken::new()));
    while status.position() < 3 {
        tokio::task::yield_now().await;
    }
    // What the third batch brought of old days came behind the removal: it goes at the next one.
    let left = "SELECT count(*) FROM tributary.readings WHERE batch < 2";
    assert_eq!(database.count(left).await, 2 * 4);
    let batches = "SELECT count(*) FROM tributary.batches";
    assert_eq!(database.count(batches).await, 3);
}

/// What another aggregator brings of the same lane: all of it is there, but one batch that differs.
fn others_item(entry: u64) -> Item {
    let mut item = item(entry);
    if let Item::Batch(batch) = &mut item {
        batch.0.in_doubt = true;
        if entry == 8 {
            batch.0.hash = BatchHash::of(b"something else");
        }
    }
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_aggregators_bring_is_there_once_and_a_contradiction_is_kept_apart() {
    let Some(database) = Database::make("t_two").await else {
        return;
    };
    drain(database.config.clone(), item, 14).await;
    let end = Arc::new(AtomicU64::new(21));
    let mut other = running(database.config.clone(), others_item, &end, 1_000);
    other.log = LogId([0xcd; 16]);
    let status = Arc::clone(&other.status);
    let (_sender, durable) = watch::channel(0);
    let mut task = JoinSet::new();
    task.spawn(other.run(durable, CancellationToken::new()));
    while status.position() < 21 {
        tokio::task::yield_now().await;
    }
    let rows = 12 * i64::from(ROWS);
    assert_eq!(
        database
            .count("SELECT count(*) FROM tributary.readings")
            .await,
        rows
    );
    let brought = "SELECT count(*) FROM tributary.batches
                   WHERE in_doubt AND kind = 'readings' AND log::text LIKE 'cdcd%'";
    assert_eq!(database.count(brought).await, 4, "what it brought alone");
    let apart = "SELECT count(*) FROM tributary.rejected WHERE reason LIKE 'journal abab%entry 8'";
    assert_eq!(database.count(apart).await, 1);
    assert_eq!(
        database
            .count("SELECT count(*) FROM tributary.sink_cursor")
            .await,
        2
    );
}

/// Alerts and an aggregate, and a text in each lane that is no JSON.
fn spoken_item(entry: u64) -> Item {
    let (lane, json) = match entry {
        0 => (
            Lane::Alerts,
            r#"{"id":"a1","state":"raised","score":0.5,"value":null}"#,
        ),
        _ => (
            Lane::Aggregates,
            r#"{"window":"minute","count":60,"mean":1.25,"p95":null}"#,
        ),
    };
    let mut readings = Readings::new();
    for text in [json, "no json"] {
        let meta = Meta {
            event_time: crate::made::EPOCH_US,
            ..Meta::default()
        };
        readings.push(SeriesId(4), meta, Value::Str(text)).unwrap();
    }
    let mut origin = origin(entry);
    origin.key.lane = lane;
    Item::Batch(Box::new((origin, Content::Readings(readings))))
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_aggregates_are_asked_for_by_their_columns() {
    let Some(database) = Database::make("t_spoken").await else {
        return;
    };
    drain(database.config.clone(), spoken_item, 2).await;
    let sql = "SELECT alert_id, state, score, value, device, text_as_it_came
               FROM tributary.alerts ORDER BY \"row\"";
    let rows = database.client.query(sql, &[]).await.unwrap();
    let (id, state): (Option<&str>, Option<&str>) = (rows[0].get(0), rows[0].get(1));
    assert_eq!((id, state), (Some("a1"), Some("raised")));
    assert_eq!(
        (
            rows[0].get::<_, Option<f64>>(2),
            rows[0].get::<_, Option<f64>>(3)
        ),
        (Some(0.5), None)
    );
    assert_eq!(rows[1].get::<_, Option<&str>>(5), Some("no json"));
    let sql = "SELECT \"window\", count, mean FROM tributary.aggregates WHERE json IS NOT NULL";
    let row = database.client.query_one(sql, &[]).await.unwrap();
    assert_eq!(
        (
            row.get::<_, &str>(0),
            row.get::<_, i64>(1),
            row.get::<_, f64>(2)
        ),
        ("minute", 60, 1.25)
    );
}

/// A whole aggregator, stopped and started: what its agents were acknowledged is in the lake and in
/// the database, and the shutdown waits for both.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_aggregator_acknowledged_is_in_its_database_when_it_has_ended() {
    let Some(database) = Database::make("t_whole").await else {
        return;
    };
    let dir = tempfile::TempDir::new().unwrap();
    let (mut config, mut uplink) = configured(&dir);
    config.sinks = vec![SinkConfig {
        name: "warehouse".to_owned(),
        required: true,
        pace: Pace {
            rows: 10_000,
            age_us: 20_000,
        },
        target: Target::Postgres(config_of(&database.config)),
    }];
    let mut sent = 0;
    let memory = Memory::default();
    let (sealed, queue) = mpsc::channel(256);
    let (status, _watch) = watch::channel(tributary_uplink::Status::default());
    let first = start(config.clone(), CancellationToken::new())
        .await
        .unwrap();
    config.uplink = first.uplink_addr();
    uplink.target.address = config.uplink.to_string();
    let sender = tributary_protocol::session::Sender::new(BUFFER, Vec::new());
    let sending = tributary_uplink::run(uplink, sender, memory.clone(), queue, status);
    let feeding = async {
        let mut running = first;
        sealed.send(memory.put(series(0, 0, 3))).await.unwrap();
        for _ in 0..3 {
            for _ in 0..10 {
                let batch = memory.put(readings(sent, 3, 50, 0));
                sealed.send(batch).await.unwrap();
                sent += 1;
            }
            running.shut_down().await.unwrap();
            running = start(config.clone(), CancellationToken::new())
                .await
                .unwrap();
        }
        drop(sealed);
        running
    };
    let (all, running) = tokio::join!(sending, feeding);
    assert!(all, "something was not acknowledged");
    let end = running.keeper().end();
    running.shut_down().await.unwrap();
    let rows = i64::try_from(sent).unwrap() * 50;
    let counted = "SELECT count(*) FROM tributary.readings";
    assert_eq!(database.count(counted).await, rows);
    // A journal that was empty when it was opened again has another name.
    let next = "SELECT max(next) FROM tributary.sink_cursor";
    assert_eq!(database.count(next).await, i64::try_from(end).unwrap());
}
