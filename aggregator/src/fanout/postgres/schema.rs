//! The tables of the sink `postgresql`, and how they come to be. Public format, documented in
//! `docs/sinks.md`; a later version only adds.
//!
//! What people read are the views `readings`, `alerts`, `aggregates` and `gaps`. A row of `reading`
//! names its batch and its series by number, which is half of the bytes of naming them in full.

use std::fmt::Write as _;

/// The version of the tables that this build writes.
pub const VERSION: i32 = 1;

/// Name of the schema.
pub const SCHEMA: &str = "tributary";

/// Tables that have to be there once a cursor is.
pub const TABLES: [&str; 8] = [
    "sink_cursor",
    "series",
    "batches",
    "reading",
    "alert",
    "aggregate",
    "gap",
    "rejected",
];

/// Steps from each version to the next.
pub const STEPS: [&str; VERSION as usize] = [V1];

const V1: &str = r#"
CREATE TABLE tributary.sink_cursor (
    log uuid PRIMARY KEY,
    next bigint NOT NULL,
    begun bigint NOT NULL,
    epoch bigint NOT NULL,
    moved timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tributary.sink_cursor IS
    'For each journal of an aggregator: entries begun <= entry < next are in these tables.';

CREATE TABLE tributary.series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    agent uuid NOT NULL,
    device text NOT NULL,
    metric text NOT NULL,
    unit text NOT NULL,
    value_type text NOT NULL,
    UNIQUE (agent, device, metric, unit, value_type, tenant)
);

CREATE TABLE tributary.batches (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    agent uuid NOT NULL,
    buffer uuid NOT NULL,
    lane text NOT NULL,
    batch bigint NOT NULL,
    kind text NOT NULL,
    "rows" integer NOT NULL,
    numbers bigint NOT NULL,
    hash bytea NOT NULL,
    in_doubt boolean NOT NULL,
    log uuid NOT NULL,
    entry bigint NOT NULL,
    UNIQUE (agent, buffer, lane, batch, tenant)
);
COMMENT ON TABLE tributary.batches IS
    'Every batch in these tables, whichever aggregator brought it: a second copy is refused.';

CREATE TABLE tributary.reading (
    batch_id bigint NOT NULL,
    "row" integer NOT NULL,
    series bigint NOT NULL,
    event_time timestamptz NOT NULL,
    received_time timestamptz NOT NULL,
    value_f64 double precision,
    value_i64 bigint,
    value_bool boolean,
    value_str text,
    quality integer NOT NULL,
    device_seq bigint,
    flags smallint NOT NULL
) PARTITION BY RANGE (event_time);
CREATE TABLE tributary.reading_other PARTITION OF tributary.reading DEFAULT;
CREATE INDEX ON tributary.reading (series, event_time);

CREATE TABLE tributary.alert (
    batch_id bigint NOT NULL,
    "row" integer NOT NULL,
    series bigint NOT NULL,
    event_time timestamptz NOT NULL,
    received_time timestamptz NOT NULL,
    json jsonb,
    text_as_it_came text
);
CREATE INDEX ON tributary.alert (event_time);
CREATE INDEX ON tributary.alert ((json ->> 'id'));

CREATE TABLE tributary.aggregate (LIKE tributary.alert);
CREATE INDEX ON tributary.aggregate (series, event_time);

CREATE TABLE tributary.gap (
    batch_id bigint,
    log uuid NOT NULL,
    entry bigint NOT NULL,
    first bigint NOT NULL,
    count bigint NOT NULL,
    readings bigint,
    event_first timestamptz NOT NULL,
    event_last timestamptz NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL
);

CREATE TABLE tributary.rejected (
    tenant text NOT NULL,
    agent uuid NOT NULL,
    buffer uuid NOT NULL,
    lane text NOT NULL,
    batch bigint NOT NULL,
    "row" integer,
    log uuid NOT NULL,
    entry bigint NOT NULL,
    reason text NOT NULL,
    payload bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tributary.rejected IS
    'What could not be rows: readings (row is set, payload is JSON), and whole sealed batches.';

CREATE VIEW tributary.readings AS
SELECT b.tenant, b.agent, b.buffer, b.lane, b.batch, r."row", s.device, s.metric,
       nullif(s.unit, '') AS unit, r.event_time, r.received_time, s.value_type, r.value_f64,
       r.value_i64, r.value_bool, r.value_str, r.quality, r.device_seq,
       r.flags & 1 <> 0 AS late, r.flags & 2 <> 0 AS clock_suspect,
       r.flags & 4 <> 0 AS maybe_repeat, r.flags & 8 <> 0 AS no_device_time, b.in_doubt
FROM tributary.reading r
JOIN tributary.batches b ON b.id = r.batch_id
JOIN tributary.series s ON s.id = r.series;

CREATE VIEW tributary.alerts AS
SELECT b.tenant, b.agent, b.buffer, b.lane, b.batch, a."row", a.json ->> 'id' AS alert_id,
       a.json ->> 'state' AS state, a.json ->> 'kind' AS kind, s.device, s.metric,
       nullif(s.unit, '') AS unit, a.json ->> 'detector' AS detector, a.json ->> 'part' AS part,
       a.json ->> 'severity' AS severity, (a.json ->> 'score')::double precision AS score,
       (a.json ->> 'value')::double precision AS value, a.event_time, a.received_time,
       a.json ->> 'text' AS text, a.json, a.text_as_it_came, b.in_doubt
FROM tributary.alert a
JOIN tributary.batches b ON b.id = a.batch_id
JOIN tributary.series s ON s.id = a.series;

CREATE VIEW tributary.aggregates AS
SELECT b.tenant, b.agent, b.buffer, b.lane, b.batch, a."row", a.json ->> 'window' AS "window",
       a.json ->> 'kind' AS kind, s.device, s.metric, nullif(s.unit, '') AS unit, a.event_time,
       a.received_time, (a.json ->> 'count')::bigint AS count,
       (a.json ->> 'min')::double precision AS min, (a.json ->> 'max')::double precision AS max,
       (a.json ->> 'mean')::double precision AS mean, (a.json ->> 'std')::double precision AS std,
       (a.json ->> 'first')::double precision AS first,
       (a.json ->> 'last')::double precision AS last,
       (a.json ->> 'p50')::double precision AS p50, (a.json ->> 'p95')::double precision AS p95,
       (a.json ->> 'p99')::double precision AS p99, (a.json ->> 'complete')::boolean AS complete,
       a.json, a.text_as_it_came, b.in_doubt
FROM tributary.aggregate a
JOIN tributary.batches b ON b.id = a.batch_id
JOIN tributary.series s ON s.id = a.series;

CREATE VIEW tributary.gaps AS
SELECT b.tenant, b.agent, b.buffer, b.lane, b.batch, g.first, g.count, g.readings, g.event_first,
       g.event_last, g.reason, g.detail, g.log, g.entry
FROM tributary.gap g
LEFT JOIN tributary.batches b ON b.id = g.batch_id;
"#;

/// A day, in microseconds.
const DAY_US: i64 = 86_400_000_000;
/// Days before today that get a partition of their own; earlier ones lie together.
pub const DAYS_BEFORE: i64 = 400;
/// Days after today; later ones are of clocks that are wrong.
pub const DAYS_AFTER: i64 = 2;

/// The day of a time, counted from 1970.
pub fn day(time: i64) -> i64 {
    time.div_euclid(DAY_US)
}

/// The day of a time, counted from 1970, if it has a partition of its own.
pub fn day_of(event_time: i64, now: i64) -> Option<i64> {
    let (day, today) = (day(event_time), day(now));
    (today - DAYS_BEFORE..=today + DAYS_AFTER)
        .contains(&day)
        .then_some(day)
}

/// Year, month and day of a day counted from 1970: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`.
fn civil(day: i64) -> (i64, i64, i64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

/// The name of a day's partition.
pub fn partition_name(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("reading_{year:04}{month:02}{day:02}")
}

fn midnight(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("timestamptz '{year:04}-{month:02}-{day:02} 00:00:00+00'")
}

/// Removes what lies outside of the days' partitions and is before this day.
pub fn remove_sql(before: i64) -> String {
    let before = midnight(before);
    format!("DELETE FROM tributary.reading_other WHERE event_time < {before}")
}

/// Makes a day's partition. What lies of that day among the others comes with it: it was far
/// ahead when it was written, and is not any more.
pub fn partition_sql(day: i64) -> String {
    let (name, from, to) = (partition_name(day), midnight(day), midnight(day + 1));
    let mut sql = String::new();
    // Writing to a text cannot fail.
    let _ = write!(
        sql,
        "CREATE TABLE tributary.{name} (LIKE tributary.reading INCLUDING DEFAULTS);
         WITH moved AS (DELETE FROM tributary.reading_other
                        WHERE event_time >= {from} AND event_time < {to} RETURNING *)
         INSERT INTO tributary.{name} SELECT * FROM moved;
         ALTER TABLE tributary.reading ATTACH PARTITION tributary.{name}
             FOR VALUES FROM ({from}) TO ({to});"
    );
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_names_of_the_calendar() {
        for (day, name) in [
            (0, "reading_19700101"),
            (-1, "reading_19691231"),
            (11_016, "reading_20000229"),
            (20_785, "reading_20261128"),
        ] {
            assert_eq!(partition_name(day), name);
        }
    }

    #[test]
    fn only_days_near_today_have_a_partition() {
        let now = 20_785 * DAY_US + 5;
        assert_eq!(day_of(now, now), Some(20_785));
        assert_eq!(day_of(now - (DAYS_BEFORE + 1) * DAY_US, now), None);
        assert_eq!(day_of(now + (DAYS_AFTER + 1) * DAY_US, now), None);
        assert_eq!(day_of(i64::MIN, now), None);
        assert_eq!(day_of(i64::MAX, now), None);
    }
}
