//! An aggregator that keeps everything, made of the protocol's own end of a session and ledger, and
//! a link to it that breaks, and on which batches come in any order.

use super::Random;
use crate::spool::AgentSpool;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tributary_protocol::batch::{Kind, SealedBatch};
use tributary_protocol::ids::{AgentId, AgentUuid, BatchKey, BufferId, Lane, LogId};
use tributary_protocol::ledger::{Covering, Ledger, Verdict};
use tributary_protocol::limits::{IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES};
use tributary_protocol::message::{AgainReason, Hello, LaneHeld, Message, Welcome};
use tributary_protocol::session::Receiver;
use tributary_uplink::Save;
use tributary_uplink::link::{Do, Uplink};

pub(super) struct Site {
    agent: AgentId,
    ledger: Ledger,
    /// Series that are known, by buffer.
    books: BTreeMap<BufferId, u32>,
    /// What it keeps, each batch once.
    pub journal: Vec<SealedBatch>,
    /// Of that what has messages that it has under another buffer as well.
    pub marked: BTreeSet<BatchKey>,
    receiver: Receiver,
    /// Batches on their way.
    wire: Vec<SealedBatch>,
    /// What it said, and did not arrive yet.
    said: VecDeque<Message>,
    /// A cursor that waits for its thread.
    save: Option<Save>,
    drained: bool,
}

impl Site {
    pub fn new() -> Self {
        Self {
            agent: AgentId::new("site", AgentUuid([1; 16])).unwrap(),
            ledger: Ledger::new(),
            books: BTreeMap::new(),
            journal: Vec::new(),
            marked: BTreeSet::new(),
            receiver: Receiver::new(),
            wire: Vec::new(),
            said: VecDeque::new(),
            save: None,
            drained: false,
        }
    }

    /// Whether the uplink is through, and everything is here.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// The connection is gone, and the process at the other end with what it had not done.
    pub fn cut(&mut self) {
        self.hang();
        self.save = None;
    }

    fn hang(&mut self) {
        self.receiver = Receiver::new();
        self.wire.clear();
        self.said.clear();
    }

    /// One thing happens at the link; gives what, for the trace.
    pub fn step(
        &mut self,
        uplink: &mut Uplink<AgentSpool>,
        now: i64,
        random: &mut Random,
    ) -> String {
        match random.below(40) {
            0 => {
                self.hang();
                uplink.lost("a broken link".to_owned());
                "lost".to_owned()
            }
            1..8 => {
                if let Some(save) = self.save.take() {
                    let kept = save();
                    uplink.saved(kept, now);
                }
                "saved".to_owned()
            }
            8..20 if !self.wire.is_empty() => {
                let pick = random.below(self.wire.len() as u64) as usize;
                let batch = self.wire.remove(pick);
                self.arrive(&batch, now);
                format!("{:?}", batch.key())
            }
            20..28 => {
                self.said
                    .extend(self.receiver.poll_ack(now).map(Message::Ack));
                let said = self.said.pop_front();
                let told = format!("{said:?}");
                said.into_iter()
                    .for_each(|message| uplink.message(message, now));
                told
            }
            _ => {
                let next = uplink.poll(now, random.below(u64::MAX));
                let told = format!("{next:?}");
                self.take(next, (uplink, now), random);
                told
            }
        }
    }

    fn take(
        &mut self,
        next: Do,
        (uplink, now): (&mut Uplink<AgentSpool>, i64),
        random: &mut Random,
    ) {
        match next {
            Do::Dial if random.below(4) == 0 => uplink.lost("nobody there".to_owned()),
            Do::Dial => {
                self.hang();
                uplink.dialled(now);
            }
            Do::Probe | Do::Adopt => panic!("there is one aggregator"),
            Do::Say(Message::Hello(hello)) => self.greet(hello),
            Do::Say(other) => panic!("{other:?}"),
            Do::Send(batch, _) => self.wire.push(batch),
            Do::Leave(_) | Do::Hang => self.hang(),
            Do::Save(save) => self.save = Some(save),
            Do::Wait(_) => {}
            Do::Done(drained) => {
                assert!(drained, "there was time enough");
                self.drained = true;
            }
        }
    }

    fn greet(&mut self, hello: Hello) {
        let hello = self.receiver.on_message(Message::Hello(hello)).unwrap();
        let buffers: Vec<_> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        let session = self.ledger.open_session(&self.agent, &buffers);
        self.receiver.on_opened(session).unwrap();
        let lanes = hello.lanes.iter().map(|lane| LaneHeld {
            key: lane.key,
            ranges: self.ledger.held(&self.agent, lane.key),
            series_known: self.books.get(&lane.key.buffer).copied().unwrap_or(0),
        });
        let welcome = Welcome {
            session,
            log: LogId([1; 16]),
            lanes: lanes.collect(),
            batch_bytes_max: 1 << 20,
            in_flight_bytes: IN_FLIGHT_BYTES as u32,
            in_flight_batches: IN_FLIGHT_BATCHES as u32,
            software: String::new(),
            more: false,
            takes_in_doubt: true,
        };
        self.said
            .extend(welcome.pages().into_iter().map(Message::Welcome));
    }

    fn arrive(&mut self, batch: &SealedBatch, now: i64) {
        let key = batch.key();
        let session = self.receiver.on_batch().unwrap();
        let known = self.books.entry(key.buffer).or_default();
        if key.lane == Lane::Telemetry && batch.series_needed() > *known {
            let reason = AgainReason::SeriesUnknown;
            return self.receiver.on_again(key, reason, now);
        }
        let verdict = match batch.kind() {
            Kind::Gap => {
                let gap = (batch.hash(), batch.numbers());
                self.ledger.judge_gap(session, &self.agent, key, gap)
            }
            _ => {
                let (named, covering) = ((key, batch.hash()), Covering::of(batch));
                let agent = &self.agent;
                self.ledger.judge_covering(session, agent, named, covering)
            }
        };
        match verdict {
            Verdict::Fresh(admission) => {
                if admission.doubled() > 0 {
                    self.marked.insert(key);
                }
                if key.lane == Lane::Series {
                    let after = batch.series_needed().saturating_add(batch.rows());
                    *known = after.max(*known);
                }
                self.journal.push(batch.clone());
                self.ledger.commit(admission);
            }
            Verdict::Replay { .. } => {}
            other => panic!("an honest agent got {other:?} for {key}"),
        }
        self.receiver.on_durable(key, now);
    }
}
