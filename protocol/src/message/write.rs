//! Messages to FlatBuffers.

use super::{
    Ack, BatchKey, BufferId, Elsewhere, FlatBufferBuilder, FrameKind, Held, Hello, LaneHeld,
    LaneState, Message, PROTOCOL, Reject, Welcome, wire,
};

pub(super) fn message(b: &mut FlatBufferBuilder<'_>, message: &Message) -> FrameKind {
    match message {
        Message::Hello(hello) => write_hello(b, hello),
        Message::Welcome(welcome) => write_welcome(b, welcome),
        Message::Ack(ack) => write_ack(b, ack),
        Message::Reject(reject) => write_reject(b, reject),
    }
}

fn id128(bytes: [u8; 16]) -> wire::Id128 {
    let whole = u128::from_be_bytes(bytes);
    wire::Id128::new((whole >> 64) as u64, whole as u64)
}

fn buffer_id(buffer: BufferId) -> wire::Id128 {
    id128(buffer.0)
}

fn write_hello(b: &mut FlatBufferBuilder<'_>, hello: &Hello) -> FrameKind {
    let lanes: Vec<_> = hello
        .lanes
        .iter()
        .map(|lane| write_lane_state(b, lane))
        .collect();
    let elsewhere: Vec<_> = hello
        .elsewhere
        .iter()
        .map(|it| write_elsewhere(b, it))
        .collect();
    let args = wire::HelloArgs {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        codecs: Some(b.create_vector(&[0u8, 1])),
        software: Some(b.create_string(&hello.software)),
        name: Some(b.create_string(&hello.name)),
        lanes: Some(b.create_vector(&lanes)),
        // Who has one aggregator says what it always said.
        elsewhere: (!elsewhere.is_empty()).then(|| b.create_vector(&elsewhere)),
    };
    let root = wire::Hello::create(b, &args);
    b.finish_minimal(root);
    FrameKind::Hello
}

fn write_lane_state<'b>(
    b: &mut FlatBufferBuilder<'b>,
    lane: &LaneState,
) -> flatbuffers::WIPOffset<wire::LaneState<'b>> {
    let args = wire::LaneStateArgs {
        buffer: Some(&buffer_id(lane.key.buffer)),
        lane: lane.key.lane.code(),
        first: lane.first,
        end: lane.end,
        open: lane.open,
        elsewhere: None,
    };
    wire::LaneState::create(b, &args)
}

fn write_elsewhere<'b>(
    b: &mut FlatBufferBuilder<'b>,
    elsewhere: &Elsewhere,
) -> flatbuffers::WIPOffset<wire::Elsewhere<'b>> {
    let ranges: Vec<_> = elsewhere.ranges.iter().map(summed_range).collect();
    let args = wire::ElsewhereArgs {
        buffer: Some(&buffer_id(elsewhere.key.buffer)),
        lane: elsewhere.key.lane.code(),
        log: Some(&id128(elsewhere.log.0)),
        ranges: Some(b.create_vector(&ranges)),
    };
    wire::Elsewhere::create(b, &args)
}

fn write_welcome(b: &mut FlatBufferBuilder<'_>, welcome: &Welcome) -> FrameKind {
    let lanes: Vec<_> = welcome
        .lanes
        .iter()
        .map(|lane| write_lane_held(b, lane))
        .collect();
    let args = wire::WelcomeArgs {
        protocol: PROTOCOL,
        session: welcome.session.0,
        log: Some(&id128(welcome.log.0)),
        lanes: Some(b.create_vector(&lanes)),
        batch_bytes_max: welcome.batch_bytes_max,
        in_flight_bytes: welcome.in_flight_bytes,
        in_flight_batches: welcome.in_flight_batches,
        software: Some(b.create_string(&welcome.software)),
        more: welcome.more,
        takes_in_doubt: welcome.takes_in_doubt,
    };
    let root = wire::Welcome::create(b, &args);
    b.finish_minimal(root);
    FrameKind::Welcome
}

fn write_lane_held<'b>(
    b: &mut FlatBufferBuilder<'b>,
    lane: &LaneHeld,
) -> flatbuffers::WIPOffset<wire::LaneHeld<'b>> {
    let ranges: Vec<_> = lane.ranges.iter().map(summed_range).collect();
    let args = wire::LaneHeldArgs {
        buffer: Some(&buffer_id(lane.key.buffer)),
        lane: lane.key.lane.code(),
        ranges: Some(b.create_vector(&ranges)),
        series_known: lane.series_known,
    };
    wire::LaneHeld::create(b, &args)
}

fn summed_range(run: &Held) -> wire::SummedRange {
    let sum = wire::Sum128::new((run.sum.0 >> 64) as u64, run.sum.0 as u64);
    wire::SummedRange::new(run.first, run.end, &sum)
}

fn write_ack(b: &mut FlatBufferBuilder<'_>, ack: &Ack) -> FrameKind {
    let ranges: Vec<_> = ack
        .ranges
        .iter()
        .map(|range| {
            let buffer = buffer_id(range.key.buffer);
            wire::AckRange::new(&buffer, range.first, range.end, range.key.lane.code())
        })
        .collect();
    let again: Vec<_> = ack
        .again
        .iter()
        .map(|again| {
            let BatchKey {
                buffer,
                lane,
                number,
            } = again.key;
            wire::Again::new(&buffer_id(buffer), number, lane.code(), again.reason as u8)
        })
        .collect();
    let args = wire::AckArgs {
        ranges: (!ranges.is_empty()).then(|| b.create_vector(&ranges)),
        again: (!again.is_empty()).then(|| b.create_vector(&again)),
    };
    let root = wire::Ack::create(b, &args);
    b.finish_minimal(root);
    FrameKind::Ack
}

fn write_reject(b: &mut FlatBufferBuilder<'_>, reject: &Reject) -> FrameKind {
    let buffer = reject.batch.map(|key| buffer_id(key.buffer));
    let args = wire::RejectArgs {
        code: reject.code as u8,
        detail: Some(b.create_string(&reject.detail)),
        retry_after_ms: reject.retry_after_ms,
        buffer: buffer.as_ref(),
        lane: reject.batch.map_or(0, |key| key.lane.code()),
        number: reject.batch.map_or(0, |key| key.number),
    };
    let root = wire::Reject::create(b, &args);
    b.finish_minimal(root);
    FrameKind::Reject
}
