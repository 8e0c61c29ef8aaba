//! Columns of the table `aggregates`: what each aggregate says, by its JSON. Device, metric and
//! times are those of the reading that carries it, so that no row is without; the other columns are
//! null where the text is no aggregate of schema 1.

use super::carried::{self, Carried, Spoken};
use super::{Texts, dictionary, schema, timestamp, utc};
use crate::lake::aggregate::Aggregate;
use crate::lake::load::{FlushPlan, Part};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, TimestampMicrosecondBuilder,
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
        ("in_doubt", DataType::Boolean, false),
    ])
}

/// Builders of what an aggregate says, in the schema's order.
#[derive(Default)]
struct AggregateColumns {
    window: Texts,
    kind: Texts,
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
    revision: Texts,
}

impl Spoken for AggregateColumns {
    fn push(&mut self, json: &str) {
        let aggregate = Aggregate::parse(json).ok();
        let aggregate = aggregate.as_ref();
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

    fn finish(mut self, carried: Carried) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = carried.whose.origin.into();
        columns.extend::<[ArrayRef; 2]>([
            Arc::new(self.window.finish()),
            Arc::new(self.kind.finish()),
        ]);
        columns.extend(carried.whose.names);
        columns.extend::<[ArrayRef; 4]>([
            Arc::new(self.unit.finish()),
            utc(self.window_from),
            utc(self.window_to),
            Arc::new(self.count.finish()),
        ]);
        for column in self.values.iter_mut().chain(&mut self.quantiles) {
            columns.push(Arc::new(column.finish()));
        }
        columns.extend::<[ArrayRef; 4]>([
            Arc::new(self.complete.finish()),
            Arc::new(self.late.finish()),
            Arc::new(self.trusted.finish()),
            Arc::new(self.closed.finish()),
        ]);
        columns.extend(carried.whose.times);
        let revision: ArrayRef = Arc::new(self.revision.finish());
        columns.extend([revision, carried.json, carried.whose.in_doubt]);
        RecordBatch::try_new(aggregates_schema(), columns)
    }
}

/// The rows of one file of aggregates as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn aggregates_columns(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    carried::columns::<AggregateColumns>(plan, part)
}
