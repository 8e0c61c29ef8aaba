//! Rows whose reading carries JSON (`alerts`, `aggregates`): whose they are and what the reading
//! says is the same for all of them, what the JSON says is each table's own.

use super::{OriginTexts, Texts, each_row, utc};
use crate::lake::alert::text_of;
use crate::lake::load::{FlushPlan, Part, PlannedRow};
use arrow_array::builder::{
    Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use std::borrow::Cow;
use std::sync::Arc;

/// What each row has, whatever its JSON is.
#[derive(Default)]
pub(super) struct Carrier {
    tenant: Texts,
    agent: Texts,
    buffer: Texts,
    lane: Texts,
    batch: Int64Builder,
    row: Int32Builder,
    device: Texts,
    metric: Texts,
    event_time: TimestampMicrosecondBuilder,
    received_time: TimestampMicrosecondBuilder,
    json: StringBuilder,
}

/// The same as columns.
pub(super) struct Carried {
    /// Tenant, agent, buffer, lane, batch, row.
    pub origin: [ArrayRef; 6],
    /// Device and metric.
    pub names: [ArrayRef; 2],
    /// Event time and received time.
    pub times: [ArrayRef; 2],
    /// The text as it came.
    pub json: ArrayRef,
}

impl Carrier {
    /// Takes a row; gives its text.
    fn push<'a>(
        &mut self,
        plan: &FlushPlan,
        row: &PlannedRow<'a>,
        texts: &OriginTexts,
    ) -> Result<Cow<'a, str>, ArrowError> {
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
        self.json.append_value(&json);
        Ok(json)
    }

    fn finish(mut self) -> Carried {
        Carried {
            origin: [
                Arc::new(self.tenant.finish()),
                Arc::new(self.agent.finish()),
                Arc::new(self.buffer.finish()),
                Arc::new(self.lane.finish()),
                Arc::new(self.batch.finish()),
                Arc::new(self.row.finish()),
            ],
            names: [
                Arc::new(self.device.finish()),
                Arc::new(self.metric.finish()),
            ],
            times: [utc(self.event_time), utc(self.received_time)],
            json: Arc::new(self.json.finish()),
        }
    }
}

/// What the JSON says, as columns.
pub(super) trait Spoken: Default {
    /// Takes a row's text; null everywhere where it is not what it should be.
    fn push(&mut self, json: &str);
    /// All columns, in the schema's order.
    fn finish(self, carried: Carried) -> Result<RecordBatch, ArrowError>;
}

/// The rows of one file as columns.
pub(super) fn columns<S: Spoken>(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    let (mut carrier, mut spoken) = (Carrier::default(), S::default());
    each_row(plan, part, |row, texts| {
        spoken.push(&carrier.push(plan, row, texts)?);
        Ok(())
    })?;
    spoken.finish(carrier.finish())
}
