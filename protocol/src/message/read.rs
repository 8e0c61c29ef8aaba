//! Messages from FlatBuffers: verified first, then every field checked on its way into our types.

use super::{
    ACK_RANGES_MAX, Ack, AckRange, Again, AgainReason, BatchKey, BufferId, Elsewhere, FrameKind,
    HELLO_ELSEWHERE_BYTES, HELLO_ELSEWHERE_MAX, HELLO_LANES_MAX, HashSum, Held, Hello, Lane,
    LaneHeld, LaneKey, LaneState, LogId, Message, MessageError, NAME_BYTES_MAX, NUMBER_MAX,
    PROTOCOL, Reject, RejectCode, Session, WELCOME_RANGES_MAX, Welcome, options, wire,
};
use flatbuffers::{Follow, Verifiable, root_with_opts};

pub(super) fn message(kind: FrameKind, payload: &[u8]) -> Result<Message, MessageError> {
    match kind {
        FrameKind::Hello => read_hello(root(kind, payload)?).map(Message::Hello),
        FrameKind::Welcome => read_welcome(root(kind, payload)?).map(Message::Welcome),
        FrameKind::Ack => read_ack(root(kind, payload)?).map(Message::Ack),
        FrameKind::Reject => read_reject(root(kind, payload)?).map(Message::Reject),
        FrameKind::Batch | FrameKind::BatchInDoubt => Err(MessageError::Batch),
    }
}

fn root<'a, T>(kind: FrameKind, payload: &'a [u8]) -> Result<T, MessageError>
where
    T: Follow<'a, Inner = T> + Verifiable + 'a,
{
    root_with_opts::<T>(&options(), payload).map_err(|reason| MessageError::Verifier {
        kind,
        reason: reason.to_string(),
    })
}

/// An error that names the field.
fn field(kind: FrameKind, field: &'static str, what: impl Into<String>) -> MessageError {
    MessageError::Field {
        kind,
        field,
        what: what.into(),
    }
}

fn id128(id: &wire::Id128) -> [u8; 16] {
    ((u128::from(id.hi()) << 64) | u128::from(id.lo())).to_be_bytes()
}

fn buffer(id: &wire::Id128) -> BufferId {
    BufferId(id128(id))
}

fn lane(kind: FrameKind, code: u8) -> Result<Lane, MessageError> {
    Lane::from_code(code).ok_or_else(|| field(kind, "lane", format!("{code}, which is no lane")))
}

fn range(kind: FrameKind, first: u64, end: u64) -> Result<(u64, u64), MessageError> {
    if first > end || end > NUMBER_MAX {
        return Err(field(
            kind,
            "range",
            format!("[{first}, {end}), which is no range"),
        ));
    }
    Ok((first, end))
}

fn text(kind: FrameKind, name: &'static str, text: Option<&str>) -> Result<String, MessageError> {
    let text = text.unwrap_or_default();
    if text.len() > 4 * NAME_BYTES_MAX || text.contains('\0') {
        return Err(field(
            kind,
            name,
            format!("{} bytes, or holds U+0000", text.len()),
        ));
    }
    Ok(text.to_owned())
}

fn count(
    kind: FrameKind,
    name: &'static str,
    count: usize,
    most: usize,
) -> Result<(), MessageError> {
    if count > most {
        return Err(field(
            kind,
            name,
            format!("{count} long; at most {most} are allowed"),
        ));
    }
    Ok(())
}

fn read_hello(hello: wire::Hello<'_>) -> Result<Hello, MessageError> {
    let kind = FrameKind::Hello;
    let (min, max) = (hello.protocol_min(), hello.protocol_max());
    if !(min..=max).contains(&PROTOCOL) {
        return Err(MessageError::Protocol { min, max });
    }
    let lanes = hello.lanes().unwrap_or_default();
    count(kind, "lanes", lanes.len(), HELLO_LANES_MAX)?;
    let state = |state: wire::LaneState<'_>| {
        let (first, end) = range(kind, state.first(), state.end())?;
        let key = LaneKey {
            buffer: buffer(state.buffer()),
            lane: lane(kind, state.lane())?,
        };
        Ok(LaneState {
            key,
            first,
            end,
            open: state.open(),
        })
    };
    Ok(Hello {
        name: text(kind, "name", hello.name())?,
        software: text(kind, "software", hello.software())?,
        lanes: lanes
            .iter()
            .map(state)
            .collect::<Result<_, MessageError>>()?,
        elsewhere: read_elsewhere(hello)?,
    })
}

fn read_elsewhere(hello: wire::Hello<'_>) -> Result<Vec<Elsewhere>, MessageError> {
    let kind = FrameKind::Hello;
    let elsewhere = hello.elsewhere().unwrap_or_default();
    count(kind, "elsewhere", elsewhere.len(), HELLO_ELSEWHERE_MAX)?;
    let one = |it: wire::Elsewhere<'_>| {
        let runs = it.ranges().unwrap_or_default();
        let most = HELLO_ELSEWHERE_BYTES / size_of::<wire::SummedRange>();
        count(kind, "elsewhere", runs.len(), most)?;
        Ok(Elsewhere {
            key: LaneKey {
                buffer: buffer(it.buffer()),
                lane: lane(kind, it.lane())?,
            },
            log: LogId(id128(it.log())),
            ranges: summed_ranges(kind, runs.iter())?,
        })
    };
    elsewhere.iter().map(one).collect()
}

fn read_welcome(welcome: wire::Welcome<'_>) -> Result<Welcome, MessageError> {
    let kind = FrameKind::Welcome;
    let protocol = welcome.protocol();
    if protocol != PROTOCOL {
        return Err(MessageError::Protocol {
            min: protocol,
            max: protocol,
        });
    }
    let lanes = welcome.lanes().unwrap_or_default();
    count(kind, "lanes", lanes.len(), HELLO_LANES_MAX)?;
    Ok(Welcome {
        session: Session(welcome.session()),
        log: LogId(id128(welcome.log())),
        lanes: lanes.iter().map(read_lane_held).collect::<Result<_, _>>()?,
        batch_bytes_max: welcome.batch_bytes_max(),
        in_flight_bytes: welcome.in_flight_bytes(),
        in_flight_batches: welcome.in_flight_batches(),
        software: text(kind, "software", welcome.software())?,
        more: welcome.more(),
        takes_in_doubt: welcome.takes_in_doubt(),
    })
}

fn read_lane_held(held: wire::LaneHeld<'_>) -> Result<LaneHeld, MessageError> {
    let kind = FrameKind::Welcome;
    let runs = held.ranges().unwrap_or_default();
    count(kind, "ranges", runs.len(), WELCOME_RANGES_MAX)?;
    let key = LaneKey {
        buffer: buffer(held.buffer()),
        lane: lane(kind, held.lane())?,
    };
    Ok(LaneHeld {
        key,
        ranges: summed_ranges(kind, runs.iter())?,
        series_known: held.series_known(),
    })
}

/// Runs that are ascending, not empty, and apart by at least one number.
fn summed_ranges<'a>(
    kind: FrameKind,
    runs: impl Iterator<Item = &'a wire::SummedRange>,
) -> Result<Vec<Held>, MessageError> {
    let mut at = 0;
    let mut ranges = Vec::new();
    for run in runs {
        let (first, end) = range(kind, run.first(), run.end())?;
        if first == end || first < at {
            return Err(field(kind, "ranges", "out of order or empty"));
        }
        // The next run begins beyond a hole of at least one number.
        at = end + 1;
        let sum = (u128::from(run.sum().hi()) << 64) | u128::from(run.sum().lo());
        ranges.push(Held {
            first,
            end,
            sum: HashSum(sum),
        });
    }
    Ok(ranges)
}

fn read_ack(ack: wire::Ack<'_>) -> Result<Ack, MessageError> {
    let kind = FrameKind::Ack;
    let ranges = ack.ranges().unwrap_or_default();
    let again = ack.again().unwrap_or_default();
    count(kind, "ranges", ranges.len(), ACK_RANGES_MAX)?;
    count(kind, "again", again.len(), ACK_RANGES_MAX)?;
    let ack_range = |acked: &wire::AckRange| {
        let (first, end) = range(kind, acked.first(), acked.end())?;
        let key = LaneKey {
            buffer: buffer(acked.buffer()),
            lane: lane(kind, acked.lane())?,
        };
        Ok(AckRange { key, first, end })
    };
    let once_more = |again: &wire::Again| {
        let (number, _) = range(kind, again.number(), again.number())?;
        let lane = lane(kind, again.lane())?;
        let reason = match again.reason() {
            1 => AgainReason::SeriesUnknown,
            2 => AgainReason::Damaged,
            4 => AgainReason::Holes,
            // A reason of a later version: asked for again all the same.
            _ => AgainReason::Busy,
        };
        Ok(Again {
            key: BatchKey {
                buffer: buffer(again.buffer()),
                lane,
                number,
            },
            reason,
        })
    };
    Ok(Ack {
        ranges: ranges
            .iter()
            .map(ack_range)
            .collect::<Result<_, MessageError>>()?,
        again: again
            .iter()
            .map(once_more)
            .collect::<Result<_, MessageError>>()?,
    })
}

fn read_reject(reject: wire::Reject<'_>) -> Result<Reject, MessageError> {
    let kind = FrameKind::Reject;
    let code = reject.code();
    let code = RejectCode::ALL
        .into_iter()
        .find(|known| *known as u8 == code)
        .ok_or_else(|| {
            field(
                kind,
                "code",
                format!("{code}, which this build does not know"),
            )
        })?;
    let batch = match reject.buffer() {
        None => None,
        Some(id) => {
            let (number, _) = range(kind, reject.number(), reject.number())?;
            let lane = lane(kind, reject.lane())?;
            Some(BatchKey {
                buffer: buffer(id),
                lane,
                number,
            })
        }
    };
    let detail = text(kind, "detail", reject.detail())?;
    Ok(Reject {
        code,
        detail,
        retry_after_ms: reject.retry_after_ms(),
        batch,
    })
}
