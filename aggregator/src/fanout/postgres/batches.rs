//! Which batches are in a database: each once, whichever aggregator brings it.

use super::bigint;
use super::errors::judge;
use super::plan::{Plan, PlannedBatch};
use crate::fanout::sink::SinkError;
use std::collections::BTreeMap;
use tokio_postgres::Transaction;

/// What became of a batch.
pub(super) enum Taken {
    /// It is new here, under this number.
    Fresh(i64),
    /// It is here, brought by whom: these are its rows a second time.
    There,
    /// Something else is here under its name.
    Contradicted(String),
}

/// Takes every batch that is not here yet, in one statement; with its number where it was new.
const TAKE: &str = "WITH given AS (
            SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]::uuid[], $4::text[]::uuid[],
                $5::text[], $6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bytea[],
                $11::bigint[], $12::boolean[])
            AS u (place, tenant, agent, buffer, lane, batch, kind, \"rows\", numbers, hash, entry,
                in_doubt)
        ), taken AS (
            INSERT INTO tributary.batches (tenant, agent, buffer, lane, batch, kind, \"rows\",
                numbers, hash, in_doubt, log, entry)
            SELECT tenant, agent, buffer, lane, batch, kind, \"rows\"::integer, numbers, hash,
                in_doubt, $13::text::uuid, entry FROM given
            ON CONFLICT DO NOTHING RETURNING id, tenant, agent, buffer, lane, batch
        )
        SELECT g.place, t.id FROM given g
        LEFT JOIN taken t USING (tenant, agent, buffer, lane, batch)";

/// Takes batches in one order everywhere, so that two aggregators do not wait for each other; what
/// became of each, in the plan's order.
pub(super) async fn take_batches(
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
    let doubts: Vec<bool> = order
        .iter()
        .filter_map(batch)
        .map(|it| it.origin.in_doubt)
        .collect();
    let found = transaction
        .query(
            TAKE,
            &[
                &places, &tenants, &agents, &buffers, &lanes, &numbers, &kinds, &rows, &counts,
                &hashes, &entries, &doubts, &log,
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
