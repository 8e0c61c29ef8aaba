//! Columns of the table `aggregates`: what each aggregate says, by its JSON. Device, metric and
//! times are those of the reading that carries it, so that no row is without; the other columns are
//! null where the text is no aggregate of schema 1.

use super::{OriginTexts, Texts, dictionary, schema, timestamp, utc};
use crate::lake::aggregate::Aggregate;
use crate::lake::alert::text_of;
use crate::lake::load::{FlushPlan, Part, PlannedRow};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use std::sync::Arc;

/// Columns of `aggregates`; they are only added at the end.
pub fn aggregates_schema() -> SchemaRef {
    schema(vec![
        ("tenant", dictionary(), false),
        ("agent", dictionary(), false),
        ("buffer", dictionary(), false),
        ("lane", dictionary(), false),
        ("batch", DataType::Int64, false),
        ("row", DataType::Int32, false),
        ("window", dictionary(), true),
        ("kind", dictionary(), true),
        ("device", dictionary(), false),
        ("metric", dictionary(), false),
        ("unit", dictionary(), true),
        ("window_from", timestamp(), true),
        ("window_to", timestamp(), true),
        ("count", DataType::Int64, true),
        ("min", DataType::Float64, true),
        ("max", DataType::Float64, true),
        ("mean", DataType::Float64, true),
        ("std", DataType::Float64, true),
        ("first", DataType::Float64, true),
        ("last", DataType::Float64, true),
        ("p50", DataType::Float64, true),
        ("p95", DataType::Float64, true),
        ("p99", DataType::Float64, true),
        ("complete", DataType::Boolean, true),
        ("late", DataType::Int64, true),
        ("trusted", DataType::Boolean, true),
        ("closed", dictionary(), true),
        ("event_time", timestamp(), false),
        ("received_time", timestamp(), false),
        ("revision", dictionary(), true),
        ("json", DataType::Utf8, false),
    ])
}

/// Builders of all columns, in the schema's order.
#[derive(Default)]
struct AggregateColumns {
    tenant: Texts,
    agent: Texts,
    buffer: Texts,
    lane: Texts,
    batch: Int64Builder,
    row: Int32Builder,
    window: Texts,
    kind: Texts,
    device: Texts,
    metric: Texts,
    unit: Texts,
    window_from: TimestampMicrosecondBuilder,
    window_to: TimestampMicrosecondBuilder,
    count: Int64Builder,
    /// `min`, `max`, `mean`, `std`, `first`, `last`.
    values: [Float64Builder; 6],
    /// `p50`, `p95`, `p99`.
    quantiles: [Float64Builder; 3],
    complete: BooleanBuilder,
    late: Int64Builder,
    trusted: BooleanBuilder,
    closed: Texts,
    event_time: TimestampMicrosecondBuilder,
    received_time: TimestampMicrosecondBuilder,
    revision: Texts,
    json: StringBuilder,
}

impl AggregateColumns {
    fn push(
        &mut self,
        plan: &FlushPlan,
        row: &PlannedRow<'_>,
        texts: &OriginTexts,
    ) -> Result<(), ArrowError> {
        let origin = &row.batch.origin;
        self.tenant.append(origin.agent.tenant())?;
        self.agent.append(&texts.agent)?;
        self.buffer.append(&texts.buffer)?;
        self.lane.append(origin.key.lane.name())?;
        self.batch.append_value(origin.key.number as i64);
        self.row.append_value(row.row as i32);
        let name = plan.names().get(row.series as usize);
        let name = name.expect("a planned row names one of its plan's series");
        self.device.append(&*name.device)?;
        self.metric.append(&*name.metric)?;
        let meta = &row.reading.meta;
        self.event_time.append_value(meta.event_time);
        self.received_time.append_value(meta.received_time);
        let json = text_of(row.batch.readings.value(row.reading));
        self.push_aggregate(Aggregate::parse(&json).ok().as_ref());
        self.json.append_value(&json);
        Ok(())
    }

    /// What stands in the aggregate alone.
    fn push_aggregate(&mut self, aggregate: Option<&Aggregate>) {
        self.window.append_option(aggregate.map(|it| &it.window));
        self.kind.append_option(aggregate.map(|it| &it.kind));
        self.unit
            .append_option(aggregate.and_then(|it| it.unit.as_ref()));
        self.window_from
            .append_option(aggregate.map(|it| it.span.0));
        self.window_to.append_option(aggregate.map(|it| it.span.1));
        self.count.append_option(aggregate.map(|it| it.count));
        let values = aggregate.map_or([None; 6], |it| it.values.map(Some));
        for (column, value) in self.values.iter_mut().zip(values) {
            column.append_option(value);
        }
        let quantiles = aggregate.map_or([None; 3], |it| it.quantiles);
        for (column, value) in self.quantiles.iter_mut().zip(quantiles) {
            column.append_option(value);
        }
        self.complete.append_option(aggregate.map(|it| it.complete));
        self.late.append_option(aggregate.map(|it| it.late));
        self.trusted.append_option(aggregate.map(|it| it.trusted));
        self.closed.append_option(aggregate.map(|it| &it.closed));
        self.revision
            .append_option(aggregate.map(|it| &it.revision));
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.tenant.finish()),
            Arc::new(self.agent.finish()),
            Arc::new(self.buffer.finish()),
            Arc::new(self.lane.finish()),
            Arc::new(self.batch.finish()),
            Arc::new(self.row.finish()),
            Arc::new(self.window.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.device.finish()),
            Arc::new(self.metric.finish()),
            Arc::new(self.unit.finish()),
            utc(self.window_from),
            utc(self.window_to),
            Arc::new(self.count.finish()),
        ];
        for column in self.values.iter_mut().chain(&mut self.quantiles) {
            columns.push(Arc::new(column.finish()));
        }
        let rest: [ArrayRef; 8] = [
            Arc::new(self.complete.finish()),
            Arc::new(self.late.finish()),
            Arc::new(self.trusted.finish()),
            Arc::new(self.closed.finish()),
            utc(self.event_time),
            utc(self.received_time),
            Arc::new(self.revision.finish()),
            Arc::new(self.json.finish()),
        ];
        columns.extend(rest);
        RecordBatch::try_new(aggregates_schema(), columns)
    }
}

/// The rows of one file of aggregates as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn aggregates_columns(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    let mut columns = AggregateColumns::default();
    super::each_row(plan, part, |row, texts| columns.push(plan, row, texts))?;
    columns.finish()
}
