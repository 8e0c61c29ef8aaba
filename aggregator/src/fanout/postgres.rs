//! The sink `postgresql`: COPY and the cursor in one transaction.
//!
//! The cursor's row is moved first, by compare and swap with the epoch of this process: whoever
//! opens the sink for the same journal raises the epoch, and so waits for, or ends, what is under
//! way. A batch that another aggregator brought already (it was in doubt) is refused by the key
//! of `batches`. Nothing here decides when a chunk goes, or what follows from an error.

mod connect;
mod copy;
mod errors;
mod plan;
pub mod schema;

use super::chunk::Chunk;
use super::sink::{Sink, SinkError, Standing};
use crate::clock::wall_us;
use crate::lake::Table;
use crate::lake::load::Names;
use crate::limits::{SINK_CALL_SECONDS_MAX, SINK_SERIES_CACHED_MAX};
use bytes::Bytes;
use copy::Tuples;
use errors::judge;
use futures_util::SinkExt;
use plan::{Brings, Plan, PlannedBatch, PlannedRows, SeriesKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Transaction};
use tributary_protocol::ids::LogId;
use tributary_protocol::reading::Value;

/// Bytes of the largest number that `bigint` holds; entries and numbers stay far below.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where the database is, and how its tables are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresConfig {
    /// `host`: a name or an address.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `database`.
    pub database: String,
    /// `user`.
    pub user: String,
    /// `password_file`: read at each connection.
    pub password_file: Option<PathBuf>,
    /// `ca`: PEM; read at each connection. None: it is not encrypted.
    pub ca: Option<PathBuf>,
    /// `retention_days`: readings go after so many days; none: they stay.
    pub retention_days: Option<u32>,
}

/// One database.
pub struct Postgres {
    config: PostgresConfig,
    names: Box<dyn Names>,
    connection: Option<Connection>,
    /// Numbers of series that are committed.
    series: HashMap<SeriesKey, i64>,
    /// Days whose partitions are there.
    days: BTreeSet<i64>,
    /// The day on which what is too old was removed last.
    retained: Option<i64>,
    /// Entries that a journal has had before this sink was there.
    begun: u64,
}

struct Connection {
    client: Client,
    log: String,
    epoch: i64,
    /// What moves the connection's bytes; it ends with this.
    _driver: JoinSet<()>,
}

impl Postgres {
    /// A database that is not open. A journal that it has not met is taken from this entry on.
    pub fn new(config: PostgresConfig, names: Box<dyn Names>, begun: u64) -> Self {
        Self {
            config,
            names,
            connection: None,
            series: HashMap::new(),
            days: BTreeSet::new(),
            retained: None,
            begun,
        }
    }

    async fn connect(&self) -> Result<(Client, JoinSet<()>), SinkError> {
        let mut driver = JoinSet::new();
        let config = connect::settings(&self.config)?;
        let wrong = |error| judge(&error);
        let client = match &self.config.ca {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(wrong)?;
                driver.spawn(async move {
                    // The client's next call says the same.
                    let _ = connection.await;
                });
                client
            }
            Some(ca) => {
                let tls = tokio_postgres_rustls::MakeRustlsConnect::new(connect::tls(ca)?);
                let (client, connection) = config.connect(tls).await.map_err(wrong)?;
                driver.spawn(async move {
                    let _ = connection.await;
                });
                client
            }
        };
        Ok((client, driver))
    }

    async fn open_cursor(&mut self, log: LogId) -> Result<Standing, SinkError> {
        let (mut client, driver) = self.connect().await?;
        let wrong = |error| judge(&error);
        // Rows that a server may forget again must not let the journal go.
        let limit = SINK_CALL_SECONDS_MAX * 1_000;
        let settings = format!(
            "SET synchronous_commit = on; SET statement_timeout = {limit};
             SET idle_in_transaction_session_timeout = {limit}"
        );
        client.batch_execute(&settings).await.map_err(wrong)?;
        migrate(&mut client).await?;
        let log = log.to_string();
        let begun = bigint(self.begun);
        let insert = "INSERT INTO tributary.sink_cursor (log, next, begun, epoch)
                      VALUES ($1::text::uuid, $2, $2, 0) ON CONFLICT DO NOTHING";
        client
            .execute(insert, &[&log, &begun])
            .await
            .map_err(wrong)?;
        // Waits for a commit that is still under way, and then sees it.
        let fence = "UPDATE tributary.sink_cursor SET epoch = epoch + 1
                     WHERE log = $1::text::uuid RETURNING next, epoch";
        let row = client.query_one(fence, &[&log]).await.map_err(wrong)?;
        let next: i64 = row.get(0);
        self.connection = Some(Connection {
            client,
            log,
            epoch: row.get(1),
            _driver: driver,
        });
        Ok(Standing {
            next: u64::try_from(next).unwrap_or(0),
        })
    }

    async fn write(&mut self, chunk: &Chunk, only: Option<&Range<usize>>) -> Result<(), SinkError> {
        let Some(connection) = &mut self.connection else {
            return Err(SinkError::Again("there is no connection".to_owned()));
        };
        let plan = Plan::of(chunk, only, &*self.names);
        let now = wall_us();
        let days = days_of(&plan, now);
        let missing: Vec<i64> = days.difference(&self.days).copied().collect();
        for day in missing {
            make_partition(&mut connection.client, day).await?;
            self.days.insert(day);
        }
        if let Some(days) = self.config.retention_days
            && only.is_none()
            && self.retained != Some(schema::day(now))
        {
            remove_old(&mut connection.client, schema::day(now) - i64::from(days)).await?;
            self.retained = Some(schema::day(now));
        }
        let wrong = |error| judge(&error);
        let (log, epoch) = (connection.log.clone(), connection.epoch);
        let transaction = connection.client.transaction().await.map_err(wrong)?;
        move_cursor(&transaction, &log, epoch, chunk).await?;
        let (numbers, fresh) = series_numbers(&transaction, &plan, &self.series).await?;
        let there = take_batches(&transaction, &log, &plan).await?;
        let tables = encode(&plan, &log, &there, &numbers)?;
        for (table, tuples) in tables.each() {
            copy_in(&transaction, table, tuples).await?;
        }
        if only.is_some() {
            return transaction.rollback().await.map_err(wrong);
        }
        transaction.commit().await.map_err(wrong)?;
        if self.series.len() + fresh.len() > SINK_SERIES_CACHED_MAX {
            self.series.clear();
        }
        self.series.extend(fresh);
        Ok(())
    }
}

impl Sink for Postgres {
    async fn open(&mut self, log: LogId) -> Result<Standing, SinkError> {
        self.connection = None;
        self.series.clear();
        self.days.clear();
        self.open_cursor(log).await
    }

    async fn deliver(&mut self, chunk: &Chunk) -> Result<(), SinkError> {
        self.write(chunk, None).await
    }

    async fn attempt(&mut self, chunk: &Chunk, rows: Range<usize>) -> Result<(), SinkError> {
        self.write(chunk, Some(&rows)).await
    }
}

/// Makes the tables, or brings them up to date.
async fn migrate(client: &mut Client) -> Result<(), SinkError> {
    let wrong = |error| judge(&error);
    let asked = "SELECT to_regclass('tributary.version') IS NOT NULL";
    let there: bool = client.query_one(asked, &[]).await.map_err(wrong)?.get(0);
    let mut version = 0;
    if there {
        let asked = "SELECT coalesce(max(version), 0) FROM tributary.version";
        version = client.query_one(asked, &[]).await.map_err(wrong)?.get(0);
    }
    if version > schema::VERSION {
        return Err(SinkError::Stuck(format!(
            "the tables are of version {version}, and this build writes version {}: run the newer \
             build here, too",
            schema::VERSION
        )));
    }
    if version == schema::VERSION {
        return check_tables(client).await;
    }
    let transaction = client.transaction().await.map_err(wrong)?;
    let begin = "SELECT pg_advisory_xact_lock(hashtext('tributary.schema'));
                 CREATE SCHEMA IF NOT EXISTS tributary;
                 CREATE TABLE IF NOT EXISTS tributary.version (
                     version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(begin).await.map_err(wrong)?;
    // Another aggregator may have been here between the two looks.
    let asked = "SELECT coalesce(max(version), 0) FROM tributary.version";
    let version: i32 = transaction
        .query_one(asked, &[])
        .await
        .map_err(wrong)?
        .get(0);
    let steps = (version..)
        .zip(schema::STEPS)
        .skip(usize::try_from(version).unwrap_or(0));
    for (at, step) in (version..).zip(steps.map(|(_, step)| step)) {
        transaction.batch_execute(step).await.map_err(wrong)?;
        let note = "INSERT INTO tributary.version (version) VALUES ($1)";
        transaction
            .execute(note, &[&(at + 1)])
            .await
            .map_err(wrong)?;
    }
    transaction.commit().await.map_err(wrong)
}

async fn check_tables(client: &Client) -> Result<(), SinkError> {
    let asked = "SELECT name FROM unnest($1::text[]) name
                 WHERE to_regclass('tributary.' || name) IS NULL";
    let names: Vec<&str> = schema::TABLES.to_vec();
    let missing = client
        .query(asked, &[&names])
        .await
        .map_err(|error| judge(&error))?;
    let missing: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(SinkError::Stuck(format!(
            "tables of the schema tributary are missing: {}; put them back from a copy, or drop the \
             schema and fill it again by `tributary-aggregator replay`",
            missing.join(", ")
        ))),
    }
}

fn days_of(plan: &Plan<'_>, now: i64) -> BTreeSet<i64> {
    let readings = plan.batches.iter().filter_map(|batch| match &batch.brings {
        Brings::Rows(rows) if rows.table == Table::Readings => Some(rows),
        _ => None,
    });
    let rows = readings.flat_map(|rows| rows.rows.iter());
    rows.filter_map(|(_, row, _)| schema::day_of(row.meta.event_time, now))
        .collect()
}

/// In a transaction of its own: whoever reads the table waits no longer than this takes.
async fn make_partition(client: &mut Client, day: i64) -> Result<(), SinkError> {
    let wrong = |error| judge(&error);
    let transaction = client.transaction().await.map_err(wrong)?;
    let lock = "SELECT pg_advisory_xact_lock(hashtext('tributary.reading'))";
    transaction.batch_execute(lock).await.map_err(wrong)?;
    let asked = "SELECT to_regclass($1) IS NOT NULL";
    let name = format!("tributary.{}", schema::partition_name(day));
    let there: bool = transaction
        .query_one(asked, &[&name])
        .await
        .map_err(wrong)?
        .get(0);
    if !there {
        let sql = schema::partition_sql(day);
        transaction.batch_execute(&sql).await.map_err(wrong)?;
    }
    transaction.commit().await.map_err(wrong)
}

/// Removes readings of days before this one. Which batches were here is remembered.
async fn remove_old(client: &mut Client, before: i64) -> Result<(), SinkError> {
    let wrong = |error| judge(&error);
    let asked = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'tributary.reading'::regclass
                   AND c.relname ~ '^reading_[0-9]{8}$' AND c.relname < $1";
    let first = schema::partition_name(before);
    let old = client.query(asked, &[&first]).await.map_err(wrong)?;
    for row in &old {
        let name: &str = row.get(0);
        let sql = format!("DROP TABLE tributary.{name}");
        client.batch_execute(&sql).await.map_err(wrong)?;
        tracing::info!(
            name,
            "a day of readings is older than `retention_days`: removed"
        );
    }
    let rest = schema::remove_sql(before);
    client.batch_execute(&rest).await.map_err(wrong)
}

async fn move_cursor(
    transaction: &Transaction<'_>,
    log: &str,
    epoch: i64,
    chunk: &Chunk,
) -> Result<(), SinkError> {
    let swap = "UPDATE tributary.sink_cursor SET next = $1, moved = now()
                WHERE log = $2::text::uuid AND next = $3 AND epoch = $4";
    let (next, first) = (bigint(chunk.end()), bigint(chunk.first()));
    let moved = transaction
        .execute(swap, &[&next, &log, &first, &epoch])
        .await;
    match moved.map_err(|error| judge(&error))? {
        1 => Ok(()),
        _ => Err(SinkError::Fenced(format!(
            "the cursor of journal {log} was taken by another process: two aggregators run from \
             copies of one journal; stop one of them, and restart the other"
        ))),
    }
}

/// The numbers of a plan's series, and those of them that are not known to be committed.
async fn series_numbers(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    known: &HashMap<SeriesKey, i64>,
) -> Result<(Vec<i64>, Vec<(SeriesKey, i64)>), SinkError> {
    let wrong = |error| judge(&error);
    // In one order everywhere, so that two aggregators do not wait for each other.
    let missing: BTreeSet<&SeriesKey> = plan
        .series
        .iter()
        .filter(|key| !known.contains_key(*key))
        .collect();
    let missing: Vec<&SeriesKey> = missing.into_iter().collect();
    let mut fresh = Vec::new();
    if !missing.is_empty() {
        let column = |of: &dyn Fn(&SeriesKey) -> String| -> Vec<String> {
            missing.iter().map(|key| of(key)).collect()
        };
        let tenants = column(&|key| key.agent.tenant().to_owned());
        let agents = column(&|key| key.agent.uuid().to_string());
        let devices = column(&|key| key.name.device.to_string());
        let metrics = column(&|key| key.name.metric.to_string());
        let units = column(&|key| key.name.unit.to_string());
        let kinds = column(&|key| key.name.value_type.name().to_owned());
        let given = "unnest($1::text[], $2::text[]::uuid[], $3::text[], $4::text[], $5::text[], \
                     $6::text[])";
        let insert = format!(
            "INSERT INTO tributary.series (tenant, agent, device, metric, unit, value_type)
             SELECT * FROM {given} ON CONFLICT DO NOTHING"
        );
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&tenants, &agents, &devices, &metrics, &units, &kinds];
        transaction.execute(&insert, &values).await.map_err(wrong)?;
        let select = format!(
            "SELECT s.id FROM {given} WITH ORDINALITY
                 AS u (tenant, agent, device, metric, unit, value_type, place)
             JOIN tributary.series s USING (tenant, agent, device, metric, unit, value_type)
             ORDER BY u.place"
        );
        let rows = transaction.query(&select, &values).await.map_err(wrong)?;
        if rows.len() != missing.len() {
            return Err(SinkError::Again(
                "series went while they were used".to_owned(),
            ));
        }
        let numbers = rows.iter().map(|row| row.get::<_, i64>(0));
        fresh = missing.into_iter().cloned().zip(numbers).collect();
    }
    let found: HashMap<&SeriesKey, i64> = fresh.iter().map(|(key, id)| (key, *id)).collect();
    let number = |key: &SeriesKey| known.get(key).or_else(|| found.get(key)).copied();
    let numbers: Option<Vec<i64>> = plan.series.iter().map(number).collect();
    let numbers = numbers.ok_or_else(|| SinkError::Again("a series has no number".to_owned()))?;
    Ok((numbers, fresh))
}

/// What became of a batch.
enum Taken {
    /// It is new here, under this number.
    Fresh(i64),
    /// It is here, brought by whom: these are its rows a second time.
    There,
    /// Something else is here under its name.
    Contradicted(String),
}

async fn take_batches(
    transaction: &Transaction<'_>,
    log: &str,
    plan: &Plan<'_>,
) -> Result<Vec<Taken>, SinkError> {
    let wrong = |error| judge(&error);
    let mut order: Vec<usize> = (0..plan.batches.len()).collect();
    let batch = |place: &usize| plan.batches.get(*place);
    order.sort_by_key(|place| batch(place).map(|it| (&it.origin.agent, it.origin.key)));
    let of = |text: &dyn Fn(&PlannedBatch<'_>) -> String| -> Vec<String> {
        order.iter().filter_map(batch).map(text).collect()
    };
    let number = |value: &dyn Fn(&PlannedBatch<'_>) -> i64| -> Vec<i64> {
        order.iter().filter_map(batch).map(value).collect()
    };
    let places: Vec<i64> = order.iter().map(|place| *place as i64).collect();
    let tenants = of(&|it| it.origin.agent.tenant().to_owned());
    let agents = of(&|it| it.origin.agent.uuid().to_string());
    let buffers = of(&|it| it.origin.key.buffer.to_string());
    let lanes = of(&|it| it.origin.key.lane.name().to_owned());
    let numbers = number(&|it| bigint(it.origin.key.number));
    let kinds = of(&|it| it.kind.to_owned());
    let rows = number(&|it| bigint(it.readings as u64));
    let counts = number(&|it| bigint(it.numbers));
    let hashes: Vec<&[u8]> = order
        .iter()
        .filter_map(batch)
        .map(|it| &it.origin.hash.0[..])
        .collect();
    let entries = number(&|it| bigint(it.origin.entry));
    let sql = "WITH given AS (
            SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]::uuid[], $4::text[]::uuid[],
                $5::text[], $6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bytea[],
                $11::bigint[])
            AS u (place, tenant, agent, buffer, lane, batch, kind, \"rows\", numbers, hash, entry)
        ), taken AS (
            INSERT INTO tributary.batches (tenant, agent, buffer, lane, batch, kind, \"rows\",
                numbers, hash, in_doubt, log, entry)
            SELECT tenant, agent, buffer, lane, batch, kind, \"rows\"::integer, numbers, hash,
                false, $12::text::uuid, entry FROM given
            ON CONFLICT DO NOTHING RETURNING id, tenant, agent, buffer, lane, batch
        )
        SELECT g.place, t.id FROM given g
        LEFT JOIN taken t USING (tenant, agent, buffer, lane, batch)";
    let found = transaction
        .query(
            sql,
            &[
                &places, &tenants, &agents, &buffers, &lanes, &numbers, &kinds, &rows, &counts,
                &hashes, &entries, &log,
            ],
        )
        .await
        .map_err(wrong)?;
    let mut taken: BTreeMap<usize, Taken> = BTreeMap::new();
    for row in &found {
        let (place, id): (i64, Option<i64>) = (row.get(0), row.get(1));
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let fate = match (id, plan.batches.get(place)) {
            (Some(id), _) => Taken::Fresh(id),
            (None, Some(batch)) => held(transaction, batch).await?,
            (None, None) => continue,
        };
        taken.insert(place, fate);
    }
    Ok(taken.into_values().collect())
}

/// A batch that is here already: seldom, so one at a time.
async fn held(transaction: &Transaction<'_>, batch: &PlannedBatch<'_>) -> Result<Taken, SinkError> {
    let asked = "SELECT hash, log::text, entry FROM tributary.batches
                 WHERE agent = $1::text::uuid AND buffer = $2::text::uuid AND lane = $3
                   AND batch = $4 AND tenant = $5";
    let key = batch.origin.key;
    let (agent, buffer) = (
        batch.origin.agent.uuid().to_string(),
        key.buffer.to_string(),
    );
    let (lane, number, tenant) = (
        key.lane.name(),
        bigint(key.number),
        batch.origin.agent.tenant(),
    );
    let row = transaction
        .query_one(asked, &[&agent, &buffer, &lane, &number, &tenant])
        .await
        .map_err(|error| judge(&error))?;
    let hash: &[u8] = row.get(0);
    if hash == batch.origin.hash.0 {
        return Ok(Taken::There);
    }
    let (log, entry): (String, i64) = (row.get(1), row.get(2));
    Ok(Taken::Contradicted(format!(
        "journal {log} brought something else under this number, as its entry {entry}"
    )))
}

/// Rows for COPY, by table.
#[derive(Default)]
struct Tables {
    reading: Tuples,
    alert: Tuples,
    aggregate: Tuples,
    gap: Tuples,
    rejected: Tuples,
}

impl Tables {
    fn each(self) -> [(&'static str, Tuples); 5] {
        [
            ("reading", self.reading),
            ("alert", self.alert),
            ("aggregate", self.aggregate),
            ("gap", self.gap),
            ("rejected", self.rejected),
        ]
    }

    fn readings(
        &mut self,
        batch: i64,
        planned: &PlannedRows<'_>,
        series: &[i64],
    ) -> Result<(), copy::NoTime> {
        for (place, row, at) in &planned.rows {
            let out = match planned.table {
                Table::Alerts => &mut self.alert,
                Table::Aggregates => &mut self.aggregate,
                Table::Readings | Table::Gaps => &mut self.reading,
            };
            let is_reading = matches!(planned.table, Table::Readings | Table::Gaps);
            out.begin(if is_reading { 12 } else { 7 });
            out.i64(batch);
            out.i32(*place);
            out.i64(series.get(*at).copied().unwrap_or_default());
            out.time(row.meta.event_time)?;
            out.time(row.meta.received_time)?;
            let value = planned.readings.value(row);
            if is_reading {
                values(out, value);
                out.i32(row.meta.quality);
                match row.meta.device_seq {
                    Some(number) => out.i64(number),
                    None => out.null(),
                }
                out.i16(i16::from(row.meta.flags.0));
            } else {
                document(out, value);
            }
        }
        Ok(())
    }
}

/// The value in the column of its type, nothing in the others.
fn values(out: &mut Tuples, value: Value<'_>) {
    match value {
        Value::F64(x) => out.f64(x),
        Value::F32(x) => out.f64(crate::lake::columns::widen(x)),
        _ => out.null(),
    }
    match value {
        Value::I64(x) => out.i64(x),
        _ => out.null(),
    }
    match value {
        Value::Bool(x) => out.bool(x),
        _ => out.null(),
    }
    match value {
        Value::Str(x) => out.text(x),
        _ => out.null(),
    }
}

/// JSON as JSON, and what is none as it came.
fn document(out: &mut Tuples, value: Value<'_>) {
    let text = match value {
        Value::Str(text) => text.to_owned(),
        other => format!("{other:?}"),
    };
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => {
            out.json(&text);
            out.null();
        }
        Err(_) => {
            out.null();
            out.text(&text);
        }
    }
}

fn encode(
    plan: &Plan<'_>,
    log: &str,
    taken: &[Taken],
    series: &[i64],
) -> Result<Tables, SinkError> {
    let mut tables = Tables::default();
    let refused = |error: copy::NoTime| SinkError::Refused(error.to_string());
    let journal = u128::from_str_radix(&log.replace('-', ""), 16)
        .unwrap_or(0)
        .to_be_bytes();
    for (batch, taken) in plan.batches.iter().zip(taken) {
        let origin = batch.origin;
        let reject = |tables: &mut Tables, row: Option<i32>, reason: &str, payload: &[u8]| {
            let out = &mut tables.rejected;
            out.begin(10);
            out.text(origin.agent.tenant());
            out.bytes(&origin.agent.uuid().0);
            out.bytes(&origin.key.buffer.0);
            out.text(origin.key.lane.name());
            out.i64(bigint(origin.key.number));
            match row {
                Some(row) => out.i32(row),
                None => out.null(),
            }
            out.bytes(&journal);
            out.i64(bigint(origin.entry));
            out.text(&reason.replace('\0', "\u{fffd}"));
            out.bytes(payload);
        };
        let id = match taken {
            Taken::Fresh(id) => *id,
            Taken::There => continue,
            Taken::Contradicted(reason) => {
                reject(&mut tables, None, reason, &origin.sealed);
                continue;
            }
        };
        for (row, reason, payload) in &batch.rejected {
            reject(&mut tables, *row, reason, payload);
        }
        match &batch.brings {
            Brings::Nothing => {}
            Brings::Rows(rows) => tables.readings(id, rows, series).map_err(refused)?,
            Brings::Gaps(rows) => {
                for row in rows {
                    let out = &mut tables.gap;
                    out.begin(10);
                    out.i64(id);
                    out.bytes(&journal);
                    out.i64(bigint(origin.entry));
                    out.i64(bigint(row.first));
                    out.i64(bigint(row.count));
                    match row.readings {
                        Some(count) => out.i64(bigint(count)),
                        None => out.null(),
                    }
                    out.time(row.event_first).map_err(refused)?;
                    out.time(row.event_last).map_err(refused)?;
                    out.text(&row.reason);
                    out.text(&row.detail);
                }
            }
        }
    }
    for entries in &plan.damaged {
        damaged(&mut tables.gap, &journal, entries).map_err(refused)?;
    }
    Ok(tables)
}

/// Entries of the journal that nobody can read: whose they were is not known.
fn damaged(out: &mut Tuples, journal: &[u8], entries: &Range<u64>) -> Result<(), copy::NoTime> {
    out.begin(10);
    out.null();
    out.bytes(journal);
    out.i64(bigint(entries.start));
    out.i64(bigint(entries.start));
    out.i64(bigint(entries.end.saturating_sub(entries.start)));
    out.null();
    out.time(0)?;
    out.time(0)?;
    out.text("damaged");
    let (from, to) = (entries.start, entries.end);
    out.text(&format!("entries {from}..{to} of the journal"));
    Ok(())
}

async fn copy_in(
    transaction: &Transaction<'_>,
    table: &str,
    tuples: Tuples,
) -> Result<(), SinkError> {
    if tuples.rows() == 0 {
        return Ok(());
    }
    let wrong = |error| judge(&error);
    let columns = match table {
        "rejected" => " (tenant, agent, buffer, lane, batch, \"row\", log, entry, reason, payload)",
        _ => "",
    };
    let sql = format!("COPY tributary.{table}{columns} FROM STDIN (FORMAT binary)");
    let sink = transaction.copy_in::<_, Bytes>(&sql).await.map_err(wrong)?;
    let mut sink = pin!(sink);
    for block in tuples.finish() {
        sink.feed(block).await.map_err(wrong)?;
    }
    sink.finish().await.map_err(wrong)?;
    Ok(())
}
