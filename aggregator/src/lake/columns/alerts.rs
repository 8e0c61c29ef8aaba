//! Columns of the table `alerts`: what each alert says, by its JSON. Device, metric and times are
//! those of the reading that carries it, so that no row is without; the other columns are null
//! where the text is no alert of schema 1.

use super::{OriginTexts, Texts, dictionary, schema, timestamp, utc};
use crate::lake::alert::{Alert, text_of};
use crate::lake::load::{FlushPlan, Part, PlannedRow};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
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
    ])
}

/// Builders of all columns, in the schema's order.
#[derive(Default)]
struct AlertColumns {
    tenant: Texts,
    agent: Texts,
    buffer: Texts,
    lane: Texts,
    batch: Int64Builder,
    row: Int32Builder,
    alert_id: StringBuilder,
    state: Texts,
    kind: Texts,
    device: Texts,
    metric: Texts,
    unit: Texts,
    detector: Texts,
    part: Texts,
    revision: Texts,
    severity: Texts,
    score: Float64Builder,
    value: Float64Builder,
    event_time: TimestampMicrosecondBuilder,
    received_time: TimestampMicrosecondBuilder,
    detection_time: TimestampMicrosecondBuilder,
    window_from: TimestampMicrosecondBuilder,
    window_to: TimestampMicrosecondBuilder,
    late: BooleanBuilder,
    text: StringBuilder,
    json: StringBuilder,
}

impl AlertColumns {
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
        self.push_alert(Alert::parse(&json).ok().as_ref());
        self.json.append_value(&json);
        Ok(())
    }

    /// What stands in the alert alone.
    fn push_alert(&mut self, alert: Option<&Alert>) {
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

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.tenant.finish()),
            Arc::new(self.agent.finish()),
            Arc::new(self.buffer.finish()),
            Arc::new(self.lane.finish()),
            Arc::new(self.batch.finish()),
            Arc::new(self.row.finish()),
            Arc::new(self.alert_id.finish()),
            Arc::new(self.state.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.device.finish()),
            Arc::new(self.metric.finish()),
            Arc::new(self.unit.finish()),
            Arc::new(self.detector.finish()),
            Arc::new(self.part.finish()),
            Arc::new(self.revision.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(self.score.finish()),
            Arc::new(self.value.finish()),
            utc(self.event_time),
            utc(self.received_time),
            utc(self.detection_time),
            utc(self.window_from),
            utc(self.window_to),
            Arc::new(self.late.finish()),
            Arc::new(self.text.finish()),
            Arc::new(self.json.finish()),
        ];
        RecordBatch::try_new(alerts_schema(), columns)
    }
}

/// The rows of one file of alerts as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn alerts_columns(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    let mut columns = AlertColumns::default();
    super::each_row(plan, part, |row, texts| columns.push(plan, row, texts))?;
    columns.finish()
}
