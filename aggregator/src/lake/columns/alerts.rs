//! Columns of the table `alerts`: what each alert says, by its JSON. Device, metric and times are
//! those of the reading that carries it, so that no row is without; the other columns are null
//! where the text is no alert of schema 1.

use super::carried::{self, Carried, Spoken};
use super::{Texts, dictionary, schema, timestamp, utc};
use crate::lake::alert::Alert;
use crate::lake::load::{FlushPlan, Part};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use std::sync::Arc;

/// Columns of `alerts`; they are only added at the end.
pub fn alerts_schema() -> SchemaRef {
    schema(vec![
        ("tenant", dictionary(), false),
        ("agent", dictionary(), false),
        ("buffer", dictionary(), false),
        ("lane", dictionary(), false),
        ("batch", DataType::Int64, false),
        ("row", DataType::Int32, false),
        ("alert_id", DataType::Utf8, true),
        ("state", dictionary(), true),
        ("kind", dictionary(), true),
        ("device", dictionary(), false),
        ("metric", dictionary(), false),
        ("unit", dictionary(), true),
        ("detector", dictionary(), true),
        ("part", dictionary(), true),
        ("revision", dictionary(), true),
        ("severity", dictionary(), true),
        ("score", DataType::Float64, true),
        ("value", DataType::Float64, true),
        ("event_time", timestamp(), false),
        ("received_time", timestamp(), false),
        ("detection_time", timestamp(), true),
        ("window_from", timestamp(), true),
        ("window_to", timestamp(), true),
        ("late", DataType::Boolean, true),
        ("text", DataType::Utf8, true),
        ("json", DataType::Utf8, false),
        ("in_doubt", DataType::Boolean, false),
    ])
}

/// Builders of what an alert says, in the schema's order.
#[derive(Default)]
struct AlertColumns {
    alert_id: StringBuilder,
    state: Texts,
    kind: Texts,
    unit: Texts,
    detector: Texts,
    part: Texts,
    revision: Texts,
    severity: Texts,
    score: Float64Builder,
    value: Float64Builder,
    detection_time: TimestampMicrosecondBuilder,
    window_from: TimestampMicrosecondBuilder,
    window_to: TimestampMicrosecondBuilder,
    late: BooleanBuilder,
    text: StringBuilder,
}

impl Spoken for AlertColumns {
    fn push(&mut self, json: &str) {
        let alert = Alert::parse(json).ok();
        let alert = alert.as_ref();
        self.alert_id.append_option(alert.map(|it| &it.id));
        self.state.append_option(alert.map(|it| &it.state));
        self.kind.append_option(alert.map(|it| &it.kind));
        self.unit
            .append_option(alert.and_then(|it| it.unit.as_ref()));
        self.detector.append_option(alert.map(|it| &it.detector));
        self.part
            .append_option(alert.and_then(|it| it.part.as_ref()));
        self.revision.append_option(alert.map(|it| &it.revision));
        self.severity.append_option(alert.map(|it| &it.severity));
        self.score.append_option(alert.map(|it| it.score));
        self.value.append_option(alert.and_then(|it| it.value));
        self.detection_time
            .append_option(alert.map(|it| it.detection_time));
        let window = alert.and_then(|it| it.window);
        self.window_from.append_option(window.map(|(from, _)| from));
        self.window_to.append_option(window.map(|(_, to)| to));
        self.late.append_option(alert.map(|it| it.late));
        self.text.append_option(alert.map(|it| &it.text));
    }

    fn finish(mut self, carried: Carried) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = carried.whose.origin.into();
        columns.extend::<[ArrayRef; 3]>([
            Arc::new(self.alert_id.finish()),
            Arc::new(self.state.finish()),
            Arc::new(self.kind.finish()),
        ]);
        columns.extend(carried.whose.names);
        columns.extend::<[ArrayRef; 7]>([
            Arc::new(self.unit.finish()),
            Arc::new(self.detector.finish()),
            Arc::new(self.part.finish()),
            Arc::new(self.revision.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(self.score.finish()),
            Arc::new(self.value.finish()),
        ]);
        columns.extend(carried.whose.times);
        columns.extend::<[ArrayRef; 7]>([
            utc(self.detection_time),
            utc(self.window_from),
            utc(self.window_to),
            Arc::new(self.late.finish()),
            Arc::new(self.text.finish()),
            carried.json,
            carried.whose.in_doubt,
        ]);
        RecordBatch::try_new(alerts_schema(), columns)
    }
}

/// The rows of one file of alerts as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn alerts_columns(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    carried::columns::<AlertColumns>(plan, part)
}
