//! The sink `postgresql`: COPY and the cursor in one transaction.
//!
//! The cursor's row is moved first, by compare and swap with the epoch of this process: whoever
//! opens the sink for the same journal raises the epoch, and so waits for, or ends, what is under
//! way. A batch that another aggregator brought already (it was in doubt) is refused by the key
//! of `batches`. Nothing here decides when a chunk goes, or what follows from an error.

mod connect;
mod errors;
pub mod schema;
mod tables;

mod batches;
mod copy;
mod encode;
mod plan;
mod series;

use super::chunk::Chunk;
use super::sink::{Sink, SinkError, Standing};
use crate::clock::wall_us;
use crate::lake::Table;
use crate::lake::load::Names;
use crate::limits::{SINK_CALL_SECONDS_MAX, SINK_SERIES_CACHED_MAX};
use batches::take_batches;
use bytes::Bytes;
use copy::Tuples;
use encode::encode;
use errors::judge;
use futures_util::SinkExt;
use plan::{Brings, Plan, SeriesKey};
use series::series_numbers;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Transaction};
use tributary_protocol::ids::LogId;

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
        tables::migrate(&mut client).await?;
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
            tables::make_partition(&mut connection.client, day).await?;
            self.days.insert(day);
        }
        if let Some(days) = self.config.retention_days
            && only.is_none()
            && self.retained != Some(schema::day(now))
        {
            tables::remove_old(&mut connection.client, (schema::day(now), days)).await?;
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

fn days_of(plan: &Plan<'_>, now: i64) -> BTreeSet<i64> {
    let readings = plan.batches.iter().filter_map(|batch| match &batch.brings {
        Brings::Rows(rows) if rows.table == Table::Readings => Some(rows),
        _ => None,
    });
    let rows = readings.flat_map(|rows| rows.rows.iter());
    rows.filter_map(|(_, row, _)| schema::day_of(row.meta.event_time, now))
        .collect()
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
