//! Sealing: from readings, definitions or a gap to a batch that never changes again.
//!
//! What is sealed is opened, decoded and compared before it is handed out, so that nothing is
//! written that could not be read.

use super::columns::ColumnWriter;
use super::envelope::{self, Parts};
use super::order::Order;
use super::pack::Packer;
use super::{Codec, Content, Decoder, Gap, Head, Kind, SealError, SealedBatch, Spec, check_covers};
use crate::limits::{BATCH_READINGS_MAX, SERIES_PER_BATCH_MAX};
use crate::reading::{Readings, Row, ValueType};
use crate::series::SeriesDef;
use flatbuffers::FlatBufferBuilder;

/// Seals batches. It keeps scratch and a zstd context; what it makes depends on its arguments only.
pub struct Sealer {
    order: Order,
    columns: ColumnWriter,
    packer: Packer,
    builder: FlatBufferBuilder<'static>,
    body: Vec<u8>,
    decoder: Decoder,
    verify: bool,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer {
    /// A sealer that verifies what it seals.
    pub fn new() -> Self {
        Self {
            order: Order::default(),
            columns: ColumnWriter::default(),
            packer: Packer::new(),
            builder: FlatBufferBuilder::new(),
            body: Vec::new(),
            decoder: Decoder::new(),
            verify: true,
        }
    }

    /// Whether each batch is decoded and compared before it is handed out. Only benches turn
    /// this off; debug builds verify all the same.
    #[must_use]
    pub fn verifying(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Seals readings, and brings their rows into the decoded order: grouped by series, then by
    /// event time, then as they were.
    ///
    /// # Errors
    /// When there is none, or too many; when types of a series differ, a series is beyond those
    /// needed, a sequence number negative, or a text holds U+0000; when the batch gets too long.
    pub fn readings(
        &mut self,
        spec: &Spec,
        readings: &mut Readings,
    ) -> Result<SealedBatch, SealError> {
        self.sealed(spec, Parts::default(), readings)
    }

    /// As [`readings`](Self::readings), for lanes that [may](crate::ids::Lane::may_name_itself):
    /// what the series are called, by number, stands in the batch itself, which needs no
    /// definitions then.
    ///
    /// # Errors
    /// As [`readings`](Self::readings), and when the batch may not name its series, or a name is
    /// not usable.
    pub fn named(
        &mut self,
        spec: &Spec,
        names: &[SeriesDef],
        readings: &mut Readings,
    ) -> Result<SealedBatch, SealError> {
        let said = Parts {
            names,
            ..Parts::default()
        };
        self.sealed(spec, said, readings)
    }

    /// As [`readings`](Self::readings), and says that other batches of the lane hold readings of
    /// the same messages, too.
    ///
    /// # Errors
    /// As there.
    pub fn shared(
        &mut self,
        spec: &Spec,
        readings: &mut Readings,
    ) -> Result<SealedBatch, SealError> {
        let said = Parts {
            shared: true,
            ..Parts::default()
        };
        self.sealed(spec, said, readings)
    }

    /// Seals readings, with what is `said` beside them.
    fn sealed(
        &mut self,
        spec: &Spec,
        said: Parts<'_>,
        readings: &mut Readings,
    ) -> Result<SealedBatch, SealError> {
        let names = said.names;
        let rows = readings.len();
        if rows == 0 {
            return Err(SealError::Empty);
        }
        if rows > BATCH_READINGS_MAX {
            return Err(SealError::TooMany {
                rows,
                max: BATCH_READINGS_MAX,
            });
        }
        let times = readings.rows().iter().map(|row| row.meta.event_time);
        let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), time| {
            (a.min(time), b.max(time))
        });
        let mut head = head(spec, Kind::Readings, rows, (first, last));
        head.check_names(names.len()).map_err(SealError::Head)?;
        names.iter().try_for_each(SeriesDef::check)?;
        check_rows(readings, head.series_end(names.len()))?;
        self.order.sort(readings.rows_mut());
        let (tokens, bits) = self
            .columns
            .write(readings, first)
            .map_err(SealError::MixedTypes)?;
        head.raw_bytes = tokens.len();
        let packed = self.packer.pack(tokens);
        head.codec = if packed.is_some() {
            Codec::Zstd
        } else {
            Codec::Stored
        };
        envelope::join_bits(bits, packed.unwrap_or(tokens), &mut self.body);
        let batch = self.finish(spec, &head, said)?;
        if self.verify || cfg!(debug_assertions) {
            let Content::Readings(decoded) = batch.decode(&mut self.decoder)? else {
                return Err(SealError::Differs);
            };
            if !same(readings, &decoded) {
                return Err(SealError::Differs);
            }
        }
        Ok(batch)
    }

    /// Seals the definitions of series `base` and on.
    ///
    /// # Errors
    /// When there is none, or too many, or a name is not usable; when the batch gets too long.
    pub fn series(
        &mut self,
        spec: &Spec,
        base: u32,
        defs: &[SeriesDef],
    ) -> Result<SealedBatch, SealError> {
        if defs.is_empty() {
            return Err(SealError::Empty);
        }
        if defs.len() > SERIES_PER_BATCH_MAX {
            return Err(SealError::TooMany {
                rows: defs.len(),
                max: SERIES_PER_BATCH_MAX,
            });
        }
        defs.iter().try_for_each(SeriesDef::check)?;
        let mut head = head(
            spec,
            Kind::Series,
            defs.len(),
            (spec.sealed_at, spec.sealed_at),
        );
        let raw = envelope::write_series(&mut self.builder, base, defs);
        head.raw_bytes = raw.len();
        let packed = self.packer.pack(raw);
        head.codec = if packed.is_some() {
            Codec::Zstd
        } else {
            Codec::Stored
        };
        self.body.clear();
        self.body.extend_from_slice(packed.unwrap_or(raw));
        let batch = self.finish(spec, &head, Parts::default())?;
        match batch.decode(&mut self.decoder)? {
            Content::Series { base: b, defs: d } if b == base && d == defs => Ok(batch),
            _ => Err(SealError::Differs),
        }
    }

    /// Seals a declared loss.
    ///
    /// # Errors
    /// When the gap says what cannot be.
    pub fn gap(&mut self, spec: &Spec, gap: &Gap) -> Result<SealedBatch, SealError> {
        gap.check().map_err(SealError::Head)?;
        let head = head(spec, Kind::Gap, 0, (gap.event_first, gap.event_last));
        self.body.clear();
        let more = Parts {
            gap: Some(gap),
            ..Parts::default()
        };
        let batch = self.finish(spec, &head, more)?;
        match batch.decode(&mut self.decoder)? {
            Content::Gap(read) if read == *gap => Ok(batch),
            _ => Err(SealError::Differs),
        }
    }

    /// Puts the envelope around the body, with what `more` says, and opens it.
    fn finish(
        &mut self,
        spec: &Spec,
        head: &Head,
        more: Parts<'_>,
    ) -> Result<SealedBatch, SealError> {
        head.check().map_err(SealError::Head)?;
        check_covers(&spec.covers).map_err(SealError::Head)?;
        let parts = Parts {
            covers: &spec.covers,
            body: &self.body,
            ..more
        };
        let bytes = envelope::write(&mut self.builder, head, &parts);
        if bytes.len() > crate::limits::BATCH_BYTES_MAX {
            return Err(SealError::TooLong(bytes.len()));
        }
        let batch = SealedBatch::open(bytes)?;
        let same = batch.head == *head
            && *batch.covers == *spec.covers
            && batch.names() == parts.names
            && batch.shared == parts.shared;
        if !same {
            return Err(SealError::Differs);
        }
        Ok(batch)
    }
}

fn head(spec: &Spec, kind: Kind, rows: usize, (first, last): (i64, i64)) -> Head {
    Head {
        key: spec.key,
        kind,
        codec: Codec::Stored,
        rows: rows as u32,
        event_first: first,
        event_last: last,
        sealed_at: spec.sealed_at,
        series_needed: spec.series_needed,
        raw_bytes: 0,
    }
}

/// Checks each row for what no batch may hold.
fn check_rows(readings: &Readings, end: u32) -> Result<(), SealError> {
    for row in readings.rows() {
        if row.series.0 >= end {
            return Err(SealError::Series {
                series: row.series,
                needed: end,
            });
        }
        if let Some(seq @ ..0) = row.meta.device_seq {
            return Err(SealError::Sequence(seq));
        }
        if row.value_type == ValueType::Str && readings.text(row.bits).contains('\0') {
            return Err(SealError::Text);
        }
    }
    Ok(())
}

/// Whether both blocks hold the same readings in the same order.
fn same(one: &Readings, other: &Readings) -> bool {
    let equal = |(a, b): (&Row, &Row)| match a.value_type {
        ValueType::Str => {
            (a.meta, a.series, b.value_type) == (b.meta, b.series, ValueType::Str)
                && one.text(a.bits) == other.text(b.bits)
        }
        _ => a == b,
    };
    one.len() == other.len() && one.rows().iter().zip(other.rows()).all(equal)
}
