//! The tables as they are in a database: made, brought up to date, looked for, and rid of old days.

use super::errors::judge;
use super::schema;
use crate::fanout::sink::SinkError;
use tokio_postgres::Client;

/// Makes the tables, or brings them up to date.
pub(super) async fn migrate(client: &mut Client) -> Result<(), SinkError> {
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
            "tables of the schema tributary are missing: {}; put them back from a copy, or drop \
             the schema: then the sink begins anew with what the journal has, and the lake has \
             the rest",
            missing.join(", ")
        ))),
    }
}

/// In a transaction of its own: whoever reads the table waits no longer than this takes.
pub(super) async fn make_partition(client: &mut Client, day: i64) -> Result<(), SinkError> {
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

/// Removes readings that are older than so many days. Which batches were here is remembered.
pub(super) async fn remove_old(
    client: &mut Client,
    (today_here, retention_days): (i64, u32),
) -> Result<(), SinkError> {
    let wrong = |error| judge(&error);
    // Of two clocks the one that is behind: one that jumped ahead must not take everything away.
    let asked = "SELECT floor(extract(epoch FROM now()) / 86400)::bigint";
    let today: i64 = client.query_one(asked, &[]).await.map_err(wrong)?.get(0);
    let before = today.min(today_here) - i64::from(retention_days);
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
