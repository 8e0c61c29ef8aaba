//! Numbers of series: given by the database, once for each name.

use super::errors::judge;
use super::plan::{Plan, SeriesKey};
use crate::fanout::sink::SinkError;
use std::collections::{BTreeSet, HashMap};
use tokio_postgres::Transaction;

/// The numbers of a plan's series, and those of them that are not known to be committed.
pub(super) async fn series_numbers(
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
