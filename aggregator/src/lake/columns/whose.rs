//! What every row of a reading has, in all tables: which one it is for ever, of which series, and
//! when.

use super::{OriginTexts, Texts, utc};
use crate::lake::load::{FlushPlan, PlannedRow};
use arrow_array::ArrayRef;
use arrow_array::builder::{
    BooleanBuilder, Int32Builder, Int64Builder, TimestampMicrosecondBuilder,
};
use arrow_schema::ArrowError;
use std::sync::Arc;

/// Builders of what every row has.
#[derive(Default)]
pub(super) struct Whose {
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
    in_doubt: BooleanBuilder,
}

/// The same as columns.
pub(super) struct WhoseColumns {
    /// Tenant, agent, buffer, lane, batch, row.
    pub origin: [ArrayRef; 6],
    /// Device and metric.
    pub names: [ArrayRef; 2],
    /// Event time and received time.
    pub times: [ArrayRef; 2],
    /// Whether another batch may hold the row as well: the last column of every table.
    pub in_doubt: ArrayRef,
}

impl Whose {
    /// Takes a row; gives the unit of its series, which may be empty.
    pub fn push<'a>(
        &mut self,
        plan: &'a FlushPlan,
        row: &PlannedRow<'_>,
        texts: &OriginTexts,
    ) -> Result<&'a str, ArrowError> {
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
        self.in_doubt.append_value(origin.in_doubt);
        Ok(&name.unit)
    }

    pub fn finish(mut self) -> WhoseColumns {
        WhoseColumns {
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
            in_doubt: Arc::new(self.in_doubt.finish()),
        }
    }
}
