//! The lake's columns: names, types, and how rows become them. Public format, documented in
//! `docs/lake.md`; columns are only added at the end.
//!
//! Nothing here depends on time, place or chance: the same rows give the same columns.

mod aggregates;
mod alerts;
mod carried;
mod whose;

pub use aggregates::{aggregates_columns, aggregates_schema};
pub use alerts::{alerts_columns, alerts_schema};

use super::load::{FlushPlan, Gap, GapRow, Origin, Part, PlannedRow};
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    StringDictionaryBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_array::{BooleanArray, Float64Array, Int32Array, Int64Array, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;
use tributary_protocol::reading::{Flags, Value};
use whose::Whose;

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema(columns: Vec<(&str, DataType, bool)>) -> SchemaRef {
    let fields = columns
        .into_iter()
        .map(|(name, kind, nullable)| Field::new(name, kind, nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Columns of `readings`. In memory, texts that repeat stand in dictionaries; in the file they are
/// plain strings.
pub fn readings_schema() -> SchemaRef {
    schema(vec![
        ("tenant", dictionary(), false),
        ("agent", dictionary(), false),
        ("buffer", dictionary(), false),
        ("lane", dictionary(), false),
        ("batch", DataType::Int64, false),
        ("row", DataType::Int32, false),
        ("device", dictionary(), false),
        ("metric", dictionary(), false),
        ("unit", dictionary(), true),
        ("event_time", timestamp(), false),
        ("received_time", timestamp(), false),
        ("value_type", dictionary(), false),
        ("value_f64", DataType::Float64, true),
        ("value_i64", DataType::Int64, true),
        ("value_bool", DataType::Boolean, true),
        ("value_str", DataType::Utf8, true),
        ("quality", DataType::Int32, false),
        ("device_seq", DataType::Int64, true),
        ("late", DataType::Boolean, false),
        ("clock_suspect", DataType::Boolean, false),
        ("maybe_repeat", DataType::Boolean, false),
        ("no_device_time", DataType::Boolean, false),
        ("in_doubt", DataType::Boolean, false),
    ])
}

/// Columns of `gaps`: one row for each declared loss. `batch` is the number of the gap itself.
/// Where the aggregator's journal is damaged, nobody knows whose readings it held: the texts are
/// empty, the times 0, `first` and `count` are its entries.
pub fn gaps_schema() -> SchemaRef {
    schema(vec![
        ("tenant", DataType::Utf8, false),
        ("agent", DataType::Utf8, false),
        ("buffer", DataType::Utf8, false),
        ("lane", DataType::Utf8, false),
        ("batch", DataType::Int64, false),
        ("first", DataType::Int64, false),
        ("count", DataType::Int64, false),
        ("readings", DataType::Int64, true),
        ("event_first", timestamp(), false),
        ("event_last", timestamp(), false),
        ("reason", DataType::Utf8, false),
        ("detail", DataType::Utf8, false),
        ("in_doubt", DataType::Boolean, false),
    ])
}

/// A single as a double with the same meaning and, for NaN, the same payload: the upper 23 bits of
/// the payload. Hardware conversion would set the quiet bit of a signalling NaN.
pub fn widen(single: f32) -> f64 {
    if !single.is_nan() {
        return f64::from(single);
    }
    let bits = single.to_bits();
    let sign = u64::from(bits >> 31) << 63;
    let payload = u64::from(bits & 0x007f_ffff) << 29;
    f64::from_bits(sign | (0x7ff << 52) | payload)
}

/// The single that [`widen`] made this double from.
pub fn narrow(double: f64) -> f32 {
    if !double.is_nan() {
        return double as f32;
    }
    let bits = double.to_bits();
    let sign = ((bits >> 63) as u32) << 31;
    let payload = ((bits >> 29) as u32) & 0x007f_ffff;
    f32::from_bits(sign | 0x7f80_0000 | payload)
}

type Texts = StringDictionaryBuilder<Int32Type>;

fn utc(mut times: TimestampMicrosecondBuilder) -> ArrayRef {
    Arc::new(times.finish().with_timezone("UTC"))
}

/// Builders of all columns of readings, in the schema's order of meaning.
#[derive(Default)]
struct ReadingColumns {
    whose: Whose,
    unit: Texts,
    value_type: Texts,
    value_f64: Float64Builder,
    value_i64: Int64Builder,
    value_bool: BooleanBuilder,
    value_str: StringBuilder,
    quality: Int32Builder,
    device_seq: Int64Builder,
    late: BooleanBuilder,
    clock_suspect: BooleanBuilder,
    maybe_repeat: BooleanBuilder,
    no_device_time: BooleanBuilder,
}

/// Texts of one batch, made once for its many rows.
struct OriginTexts {
    agent: String,
    buffer: String,
}

impl OriginTexts {
    fn of(origin: &Origin) -> Self {
        Self {
            agent: origin.agent.uuid().to_string(),
            buffer: origin.key.buffer.to_string(),
        }
    }
}

impl ReadingColumns {
    fn push(
        &mut self,
        plan: &FlushPlan,
        row: &PlannedRow<'_>,
        texts: &OriginTexts,
    ) -> Result<(), ArrowError> {
        let unit = self.whose.push(plan, row, texts)?;
        self.unit.append_option((!unit.is_empty()).then_some(unit));
        let meta = &row.reading.meta;
        self.value_type.append(row.reading.value_type.name())?;
        self.push_value(row.batch.readings.value(row.reading));
        self.quality.append_value(meta.quality);
        self.device_seq.append_option(meta.device_seq);
        self.late.append_value(meta.flags.has(Flags::LATE));
        self.clock_suspect
            .append_value(meta.flags.has(Flags::CLOCK_SUSPECT));
        self.maybe_repeat
            .append_value(meta.flags.has(Flags::MAYBE_REPEAT));
        self.no_device_time
            .append_value(meta.flags.has(Flags::NO_DEVICE_TIME));
        Ok(())
    }

    fn push_value(&mut self, value: Value<'_>) {
        let (mut float, mut integer, mut truth, mut text) = (None, None, None, None);
        match value {
            Value::F64(x) => float = Some(x),
            Value::F32(x) => float = Some(widen(x)),
            Value::I64(x) => integer = Some(x),
            Value::Bool(x) => truth = Some(x),
            Value::Str(x) => text = Some(x),
        }
        self.value_f64.append_option(float);
        self.value_i64.append_option(integer);
        self.value_bool.append_option(truth);
        self.value_str.append_option(text);
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let whose = self.whose.finish();
        let mut columns: Vec<ArrayRef> = whose.origin.into();
        columns.extend(whose.names);
        columns.push(Arc::new(self.unit.finish()));
        columns.extend(whose.times);
        columns.extend::<[ArrayRef; 11]>([
            Arc::new(self.value_type.finish()),
            Arc::new(self.value_f64.finish()),
            Arc::new(self.value_i64.finish()),
            Arc::new(self.value_bool.finish()),
            Arc::new(self.value_str.finish()),
            Arc::new(self.quality.finish()),
            Arc::new(self.device_seq.finish()),
            Arc::new(self.late.finish()),
            Arc::new(self.clock_suspect.finish()),
            Arc::new(self.maybe_repeat.finish()),
            Arc::new(self.no_device_time.finish()),
        ]);
        columns.push(whose.in_doubt);
        RecordBatch::try_new(readings_schema(), columns)
    }
}

/// The rows of one file of readings as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn readings_columns(plan: &FlushPlan, part: &Part) -> Result<RecordBatch, ArrowError> {
    let mut columns = ReadingColumns::default();
    each_row(plan, part, |row, texts| columns.push(plan, row, texts))?;
    columns.finish()
}

/// Passes on every row of a file, with the texts of its batch.
fn each_row(
    plan: &FlushPlan,
    part: &Part,
    mut each: impl FnMut(&PlannedRow<'_>, &OriginTexts) -> Result<(), ArrowError>,
) -> Result<(), ArrowError> {
    let mut texts: Option<(u64, OriginTexts)> = None;
    for row in plan.rows(part) {
        let origin = &row.batch.origin;
        let fresh = !matches!(&texts, Some((entry, _)) if *entry == origin.entry);
        if fresh {
            texts = Some((origin.entry, OriginTexts::of(origin)));
        }
        if let Some((_, texts)) = &texts {
            each(&row, texts)?;
        }
    }
    Ok(())
}

/// Declared losses as columns.
///
/// # Errors
/// When a column cannot hold its values, which the bounds of a flush exclude.
pub fn gaps_columns(gaps: &[&Gap]) -> Result<RecordBatch, ArrowError> {
    let of_origin = |of: &dyn Fn(&Origin) -> String| -> ArrayRef {
        let texts = gaps
            .iter()
            .map(|(origin, _)| origin.as_ref().map_or_else(String::new, of));
        Arc::new(StringArray::from_iter_values(texts))
    };
    let text = |of: &dyn Fn(&GapRow) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            gaps.iter().map(|(_, gap)| of(gap)),
        ))
    };
    let number = |of: &dyn Fn(&Gap) -> u64| -> ArrayRef {
        let values = gaps.iter().map(|gap| of(gap) as i64);
        Arc::new(Int64Array::from_iter_values(values))
    };
    let time = |of: &dyn Fn(&GapRow) -> i64| -> ArrayRef {
        let values = gaps.iter().map(|(_, gap)| of(gap));
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
    };
    let in_doubt = gaps
        .iter()
        .map(|(origin, _)| origin.as_ref().is_some_and(|it| it.in_doubt));
    let in_doubt: BooleanArray = in_doubt.map(Some).collect();
    let readings: Int64Array = gaps
        .iter()
        .map(|(_, gap)| gap.readings.map(|count| count as i64))
        .collect();
    let columns = vec![
        of_origin(&|origin| origin.agent.tenant().to_owned()),
        of_origin(&|origin| origin.agent.uuid().to_string()),
        of_origin(&|origin| origin.key.buffer.to_string()),
        of_origin(&|origin| origin.key.lane.name().to_owned()),
        number(&|(origin, _)| origin.as_ref().map_or(0, |origin| origin.key.number)),
        number(&|(_, gap)| gap.first),
        number(&|(_, gap)| gap.count),
        Arc::new(readings) as ArrayRef,
        time(&|gap| gap.event_first),
        time(&|gap| gap.event_last),
        text(&|gap| gap.reason.clone()),
        text(&|gap| gap.detail.clone()),
        Arc::new(in_doubt),
    ];
    RecordBatch::try_new(gaps_schema(), columns)
}

/// BLAKE3 over every cell, column by column: the proof of a file's rows, whatever wrote the file.
/// A cell is 0 when null, else 1 and its bytes (numbers little endian, texts with their length).
pub fn digest(rows: &RecordBatch) -> String {
    let mut hasher = Cells::default();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        hasher.bytes(field.name().as_bytes());
        for row in 0..column.len() {
            if column.is_null(row) {
                hasher.bytes(&[0]);
            } else {
                hasher.bytes(&[1]);
                cell(column.as_ref(), row, &mut hasher);
            }
        }
    }
    hasher.finish()
}

fn cell(column: &dyn Array, row: usize, hasher: &mut Cells) {
    let any = column.as_any();
    if let Some(texts) = any.downcast_ref::<DictionaryArray<Int32Type>>() {
        let key = texts.keys().value(row) as usize;
        if let Some(values) = texts.values().as_any().downcast_ref::<StringArray>() {
            hasher.text(values.value(key));
        }
    } else if let Some(texts) = any.downcast_ref::<StringArray>() {
        hasher.text(texts.value(row));
    } else if let Some(numbers) = any.downcast_ref::<Int64Array>() {
        hasher.bytes(&numbers.value(row).to_le_bytes());
    } else if let Some(numbers) = any.downcast_ref::<Int32Array>() {
        hasher.bytes(&numbers.value(row).to_le_bytes());
    } else if let Some(times) = any.downcast_ref::<TimestampMicrosecondArray>() {
        hasher.bytes(&times.value(row).to_le_bytes());
    } else if let Some(numbers) = any.downcast_ref::<Float64Array>() {
        hasher.bytes(&numbers.value(row).to_bits().to_le_bytes());
    } else if let Some(truths) = any.downcast_ref::<BooleanArray>() {
        hasher.bytes(&[u8::from(truths.value(row))]);
    }
}

/// Cells on their way into a hash, many at a time.
#[derive(Default)]
struct Cells {
    waiting: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Cells {
    const BLOCK: usize = 64 * 1024;

    fn bytes(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= Self::BLOCK {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(&(text.len() as u64).to_le_bytes());
        self.bytes(text.as_bytes());
    }

    fn finish(mut self) -> String {
        self.hasher.update(&self.waiting);
        self.hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_single_survives_as_a_double(bits in any::<u32>()) {
            prop_assert_eq!(narrow(widen(f32::from_bits(bits))).to_bits(), bits);
        }
    }

    #[test]
    fn a_signalling_nan_stays_one() {
        for bits in [0x7f80_0001_u32, 0xff80_0001, 0x7fc0_0000, 0xffff_ffff] {
            assert_eq!(narrow(widen(f32::from_bits(bits))).to_bits(), bits);
        }
    }
}
