//! Rows whose reading carries JSON (`alerts`, `aggregates`): whose they are and what the reading
//! says is the same for all of them, what the JSON says is each table's own.

use super::each_row;
use super::whose::{Whose, WhoseColumns};
use crate::lake::alert::text_of;
use crate::lake::load::{FlushPlan, Part};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use std::sync::Arc;

/// What each row has, whatever its JSON is, as columns.
pub(super) struct Carried {
    /// Which row it is.
    pub whose: WhoseColumns,
    /// The text as it came.
    pub json: ArrayRef,
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
    let (mut whose, mut spoken) = (Whose::default(), S::default());
    let mut texts_of_rows = StringBuilder::default();
    each_row(plan, part, |row, texts| {
        whose.push(plan, row, texts)?;
        let json = text_of(row.batch.readings.value(row.reading));
        texts_of_rows.append_value(&json);
        spoken.push(&json);
        Ok(())
    })?;
    spoken.finish(Carried {
        whose: whose.finish(),
        json: Arc::new(texts_of_rows.finish()),
    })
}
