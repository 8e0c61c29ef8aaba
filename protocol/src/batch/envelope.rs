//! The FlatBuffers around a body: the head of every batch, gaps, and definitions of series.
//!
//! Whatever comes in is verified with tight limits, then checked field by field.

use super::{
    BatchError, Codec, Content, Cover, Gap, GapReason, Head, Kind, SealedBatch, check_covers,
};
use crate::generated::tributary::wire;
use crate::ids::{BatchHash, BatchKey, BufferId, Lane};
use crate::limits::{
    BATCH_BYTES_MAX, BODY_RAW_BYTES_MAX, FLATBUFFERS_DEPTH_MAX, GAP_NUMBERS_MAX,
    SERIES_PER_BATCH_MAX,
};
use crate::reading::ValueType;
use crate::series::SeriesDef;
use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, VerifierOptions, WIPOffset};
use std::sync::Arc;

fn options(tables: usize, bytes: usize) -> VerifierOptions {
    VerifierOptions {
        max_depth: FLATBUFFERS_DEPTH_MAX,
        max_tables: tables,
        max_apparent_size: bytes,
        ..VerifierOptions::default()
    }
}

fn whole(low: u32, high: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

fn buffer_id(id: &wire::Id128) -> BufferId {
    BufferId(((u128::from(id.hi()) << 64) | u128::from(id.lo())).to_be_bytes())
}

fn wire_id(buffer: BufferId) -> wire::Id128 {
    let whole = u128::from_be_bytes(buffer.0);
    wire::Id128::new((whole >> 64) as u64, whole as u64)
}

pub(super) fn open(bytes: Bytes) -> Result<SealedBatch, BatchError> {
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(BatchError::TooLong(bytes.len()));
    }
    // A batch, its gap, and the names of its series.
    let limits = options(2 + SERIES_PER_BATCH_MAX, BATCH_BYTES_MAX);
    let root = flatbuffers::root_with_opts::<wire::Batch<'_>>(&limits, &bytes)
        .map_err(|wrong| BatchError::Envelope(wrong.to_string()))?;
    let head = read_head(&root)?;
    let covers: Arc<[Cover]> = root.covers().iter().flatten().map(read_cover).collect();
    check_covers(&covers).map_err(BatchError::Head)?;
    let gap = match (head.kind, root.gap()) {
        (Kind::Gap, Some(gap)) => Some(Arc::new(read_gap(&gap, &head)?)),
        (Kind::Gap, None) => return Err(BatchError::Head("a gap that does not say what is lost")),
        (_, Some(_)) => return Err(BatchError::Head("it declares a gap, and is none")),
        (_, None) => None,
    };
    let names = root.names().map(|names| -> Result<_, BatchError> {
        head.check_names(names.len()).map_err(BatchError::Head)?;
        names.iter().map(|def| read_def(&def)).collect()
    });
    let names: Option<Arc<[SeriesDef]>> = names.transpose()?;
    let body = root
        .body()
        .map(|body| bytes.slice_ref(body.bytes()))
        .unwrap_or_default();
    if gap.is_some() && (!body.is_empty() || head.raw_bytes > 0) {
        return Err(BatchError::Head("a gap with a body"));
    }
    let shared = root.shared();
    let hash = BatchHash::of(&bytes);
    Ok(SealedBatch {
        hash,
        head,
        covers,
        body,
        gap,
        names,
        shared,
        bytes,
    })
}

fn read_head(root: &wire::Batch<'_>) -> Result<Head, BatchError> {
    let head = root.head();
    let lane = Lane::from_code(head.lane()).ok_or(BatchError::Head("its lane is unknown"))?;
    let kind = match head.form() & 15 {
        0 => Kind::Readings,
        1 => Kind::Series,
        2 => Kind::Gap,
        kind => return Err(BatchError::Kind(kind)),
    };
    let codec = match head.form() >> 4 {
        0 => Codec::Stored,
        1 => Codec::Zstd,
        codec => return Err(BatchError::Codec(codec)),
    };
    let number = whole(head.number(), root.number_high());
    let event_first = head.event_first();
    let span = whole(head.event_span(), root.event_span_high());
    let event_last = event_first.checked_add_unsigned(span);
    let event_last = event_last.ok_or(BatchError::Head("its time range has no end"))?;
    let sealed_after = whole(head.sealed_after(), root.sealed_after_high());
    let head = Head {
        key: BatchKey {
            buffer: buffer_id(head.buffer()),
            lane,
            number,
        },
        kind,
        codec,
        rows: u32::from(head.rows()),
        event_first,
        event_last,
        sealed_at: event_last.wrapping_add_unsigned(sealed_after),
        series_needed: head.series_needed(),
        raw_bytes: head.raw_bytes() as usize,
    };
    head.check().map_err(BatchError::Head)?;
    Ok(head)
}

fn read_cover(cover: &wire::Cover) -> Cover {
    Cover {
        buffer: buffer_id(cover.buffer()),
        first: cover.first(),
        count: cover.count(),
    }
}

fn read_gap(gap: &wire::Gap<'_>, head: &Head) -> Result<Gap, BatchError> {
    let reason = GapReason::from_code(gap.reason());
    let each = gap.each().map(|each| each.bytes()).unwrap_or_default();
    let read = Gap {
        first: gap.first(),
        count: gap.count(),
        readings: gap.readings(),
        event_first: head.event_first,
        event_last: head.event_last,
        reason: reason.ok_or(BatchError::Head("the gap's reason is unknown"))?,
        detail: gap.detail().unwrap_or_default().to_owned(),
        each: read_each(each).ok_or(BatchError::Head("the gap's readings by number are wrong"))?,
    };
    read.check().map_err(BatchError::Head)?;
    Ok(read)
}

/// What goes into an envelope beside the head.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub covers: &'a [Cover],
    /// The body, in pieces that follow each other.
    pub body: &'a [u8],
    pub gap: Option<&'a Gap>,
    pub names: &'a [SeriesDef],
    pub shared: bool,
}

/// Writes the envelope. The head has been checked.
pub(super) fn write(builder: &mut FlatBufferBuilder<'_>, head: &Head, parts: &Parts<'_>) -> Bytes {
    builder.reset();
    let gap = parts.gap.map(|gap| write_gap(builder, gap));
    let covers: Vec<_> = parts
        .covers
        .iter()
        .map(|cover| wire::Cover::new(&wire_id(cover.buffer), cover.first, cover.count))
        .collect();
    let covers = (!covers.is_empty()).then(|| builder.create_vector(&covers));
    let names: Vec<_> = parts
        .names
        .iter()
        .map(|def| write_def(builder, def))
        .collect();
    let names = (!names.is_empty()).then(|| builder.create_vector(&names));
    let body = (!parts.body.is_empty()).then(|| builder.create_vector(parts.body));
    let span = head.event_last.wrapping_sub(head.event_first) as u64;
    let sealed_after = head.sealed_at.wrapping_sub(head.event_last) as u64;
    let wire_head = wire::BatchHead::new(
        &wire_id(head.key.buffer),
        head.event_first,
        span as u32,
        sealed_after as u32,
        head.key.number as u32,
        head.series_needed,
        head.raw_bytes as u32,
        head.rows as u16,
        head.key.lane.code(),
        head.kind as u8 | (head.codec as u8) << 4,
    );
    let args = wire::BatchArgs {
        head: Some(&wire_head),
        body,
        covers,
        gap,
        event_span_high: (span >> 32) as u32,
        sealed_after_high: (sealed_after >> 32) as u32,
        number_high: (head.key.number >> 32) as u32,
        names,
        shared: parts.shared,
    };
    let root = wire::Batch::create(builder, &args);
    builder.finish_minimal(root);
    Bytes::copy_from_slice(builder.finished_data())
}

fn write_gap<'b>(builder: &mut FlatBufferBuilder<'b>, gap: &Gap) -> WIPOffset<wire::Gap<'b>> {
    let detail = (!gap.detail.is_empty()).then(|| builder.create_string(&gap.detail));
    let each = write_each(&gap.each);
    let each = (!each.is_empty()).then(|| builder.create_vector(&each));
    let args = wire::GapArgs {
        first: gap.first,
        count: gap.count,
        readings: gap.readings,
        reason: gap.reason.code(),
        detail,
        each,
    };
    wire::Gap::create(builder, &args)
}

/// The readings of each number of a gap, as bytes.
fn write_each(each: &[Option<u32>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * each.len());
    for count in each {
        let mut rest = count.map_or(0, |count| u64::from(count) + 1);
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes
}

/// What [`write_each`] wrote; nothing when a number is cut or too great, or there are too many.
fn read_each(bytes: &[u8]) -> Option<Vec<Option<u32>>> {
    let mut each = Vec::new();
    let (mut value, mut shift) = (0u64, 0);
    for byte in bytes {
        if shift > 28 || each.len() == GAP_NUMBERS_MAX {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            each.push(match value {
                0 => None,
                more => Some(u32::try_from(more - 1).ok()?),
            });
            (value, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(each)
}

/// The bits of a body of readings, and its packed tokens.
pub(super) fn split_bits(body: &[u8]) -> Result<(&[u8], &[u8]), BatchError> {
    let wrong = BatchError::Body {
        column: "bits",
        problem: "is longer than the body",
    };
    let (mut length, mut rest) = (0usize, body);
    for shift in [0, 7, 14, 21] {
        let Some((byte, after)) = rest.split_first() else {
            return Err(wrong);
        };
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(length).ok_or(wrong);
        }
    }
    Err(wrong)
}

/// Puts a body of readings together: the length of its bits, these, and the packed tokens.
pub(super) fn join_bits(bits: &[u8], packed: &[u8], body: &mut Vec<u8>) {
    body.clear();
    let mut length = bits.len();
    while length >= 0x80 {
        body.push(length as u8 | 0x80);
        length >>= 7;
    }
    body.push(length as u8);
    body.extend_from_slice(bits);
    body.extend_from_slice(packed);
}

/// Writes definitions, as they stand below zstd.
pub(super) fn write_series<'b>(
    builder: &'b mut FlatBufferBuilder<'_>,
    base: u32,
    defs: &[SeriesDef],
) -> &'b [u8] {
    builder.reset();
    let defs: Vec<_> = defs.iter().map(|def| write_def(builder, def)).collect();
    let series = Some(builder.create_vector(&defs));
    let root = wire::SeriesBook::create(builder, &wire::SeriesBookArgs { base, series });
    builder.finish_minimal(root);
    builder.finished_data()
}

fn write_def<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    def: &SeriesDef,
) -> WIPOffset<wire::SeriesDef<'b>> {
    let unit = def.unit.as_deref();
    let args = wire::SeriesDefArgs {
        device: Some(builder.create_shared_string(&def.device)),
        metric: Some(builder.create_shared_string(&def.metric)),
        unit: unit.map(|unit| builder.create_shared_string(unit)),
        value_type: def.value_type.code(),
    };
    wire::SeriesDef::create(builder, &args)
}

fn read_def(def: &wire::SeriesDef<'_>) -> Result<SeriesDef, BatchError> {
    let value_type = ValueType::from_code(def.value_type()).ok_or(BatchError::Body {
        column: "value type",
        problem: "names a value type that does not exist",
    })?;
    let (device, metric, unit) = (def.device(), def.metric(), def.unit());
    Ok(SeriesDef::new(device, metric, unit, value_type)?)
}

/// Reads definitions. `rows` is what the head says.
pub(super) fn read_series(raw: &[u8], rows: u32) -> Result<Content, BatchError> {
    let limits = options(1 + SERIES_PER_BATCH_MAX, BODY_RAW_BYTES_MAX);
    let book = flatbuffers::root_with_opts::<wire::SeriesBook<'_>>(&limits, raw)
        .map_err(|wrong| BatchError::Envelope(wrong.to_string()))?;
    let series = book.series();
    let end = book
        .base()
        .checked_add(rows)
        .filter(|_| series.len() == rows as usize);
    if end.is_none() {
        return Err(BatchError::Head(
            "it does not hold as many definitions as it says",
        ));
    }
    let defs: Result<Vec<_>, BatchError> = series.iter().map(|def| read_def(&def)).collect();
    Ok(Content::Series {
        base: book.base(),
        defs: defs?,
    })
}
