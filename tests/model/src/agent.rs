//! The agent in the model: the sender of `tributary-protocol` over a spool, as `tributary-uplink`
//! drives it. It decides nothing that the sender decides.

use crate::item::{Item, lane_of};
use crate::link::Sent;
use crate::rule::Rule;
use crate::scope::Scope;
use crate::seen::{Happened, Seen};
use crate::spool::Spool;
use tributary_protocol::frame::FrameKind;
use tributary_protocol::message::{Hello, Message};
use tributary_protocol::session::{Place, Sender};

/// How long a batch in doubt waits for the aggregator that it was sent to: one tick of the model.
const HOLD_US: i64 = 1;

/// The agent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Agent {
    /// Its disk.
    pub spool: Spool,
    /// Its connection.
    pub link: Option<u8>,
    /// What it decides with.
    sender: Sender,
    /// How many batches each life sealed; the present one is the last.
    ends: Vec<u64>,
    /// Gaps of which the sender has not heard.
    untold: Vec<Item>,
    now: i64,
}

/// The place of an aggregator.
fn place(site: usize) -> Place {
    Place(site as u64 + 1)
}

impl Agent {
    /// An agent that starts for the first time.
    pub fn new(scope: &Scope) -> Self {
        let spool = Spool::default();
        let mut agent = Self {
            sender: Sender::new(lane_of(1).buffer, Vec::new()),
            spool,
            link: None,
            ends: vec![0],
            untold: Vec::new(),
            now: 0,
        };
        agent.begin(scope);
        agent
    }

    fn begin(&mut self, scope: &Scope) {
        let starts = self.spool.starts(scope.batch_bytes);
        self.sender = Sender::new(lane_of(self.life()).buffer, starts);
        self.sender.hold_for(HOLD_US);
        self.sender.on_time(self.now);
        self.sender.recall(self.spool.cursor());
        let places: Vec<Place> = (0..scope.sites).map(place).collect();
        self.sender.keep_to(&places);
        self.untold = self
            .spool
            .items()
            .filter(|item| item.gap)
            .copied()
            .collect();
        self.tell();
    }

    fn life(&self) -> u64 {
        self.ends.len() as u64
    }

    /// How many batches were sealed so far.
    pub fn sealed(&self) -> u64 {
        self.ends.iter().sum()
    }

    /// Every number that was sealed, with its life.
    pub fn numbers(&self) -> impl Iterator<Item = (u64, u64)> {
        let lives = self.ends.iter().zip(1..);
        lives.flat_map(|(end, life)| (0..*end).map(move |number| (life, number)))
    }

    /// Seals the next batch.
    pub fn seal(&mut self, bytes: u64) {
        let life = self.life();
        let Some(end) = self.ends.last_mut() else {
            return;
        };
        let item = Item::batch(life, *end);
        *end += 1;
        self.spool.put(item);
        self.sender.on_sealed(item.key(), bytes);
    }

    /// The spool gives way; the sender hears of it later.
    pub fn shed(&mut self) {
        self.untold.extend(self.spool.shed());
    }

    /// Whether the sender has to be told of a gap.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The sender hears of the gaps.
    pub fn tell(&mut self) {
        let gaps = std::mem::take(&mut self.untold).into_iter();
        for gap in gaps.filter(|gap| !self.spool.is_trimmed(gap)) {
            self.sender.on_shed(lane_of(gap.life), gap.numbers(), 0);
        }
    }

    /// Begins a connection to this aggregator; what it says first.
    pub fn dial(&mut self, link: u8, site: usize, seen: &mut Seen) -> Option<Hello> {
        let hello = self.sender.on_connected_to(place(site), "", "");
        seen.must(Rule::I11, hello.is_ok());
        self.link = Some(link);
        hello.ok()
    }

    /// The next batch to send, if one may be sent.
    pub fn send(&mut self, scope: &Scope, seen: &mut Seen) -> Option<Sent> {
        while let Some((key, urgency)) = self.sender.poll_send() {
            let Some(item) = self.spool.stored(key) else {
                seen.must(Rule::I1, false);
                return None;
            };
            if !self
                .sender
                .offer(&item.outgoing(scope.batch_bytes), urgency)
            {
                continue;
            }
            let marked = self.sender.frame_kind(item.key()) == FrameKind::BatchInDoubt;
            if marked {
                seen.note(Happened::Marked);
            }
            seen.must(Rule::I10, self.sender.in_flight() <= scope.window as usize);
            return Some(Sent { item, marked });
        }
        None
    }

    /// Whether [`send`](Self::send) has something, or learns of a gap by trying.
    pub fn may_send(&self) -> bool {
        // Asking changes nothing, but for the type.
        self.sender.clone().poll_send().is_some()
    }

    /// A message arrived; what leaves the spool by it. `None`: the session is over.
    pub fn hear(&mut self, message: Message, several: bool, seen: &mut Seen) -> Option<Vec<Item>> {
        let done = match message {
            Message::Welcome(welcome) => {
                let before = self.sender.backlog().0;
                let spool = &self.spool;
                let hash_of = |key| spool.stored(key).map(|item| item.hash());
                let done = self.sender.on_welcome(welcome, hash_of);
                // No journal of this model goes back.
                seen.must(Rule::I6, self.sender.poll_notices().is_empty());
                if self.sender.backlog().0 < before {
                    seen.note(Happened::Learned);
                }
                if several && self.sender.needs_saving() {
                    self.save();
                }
                done
            }
            Message::Ack(ack) => self.sender.on_ack(&ack),
            Message::Reject(_) => return None,
            Message::Hello(_) => {
                seen.must(Rule::I11, false);
                return None;
            }
        };
        seen.must(Rule::I11, done.is_ok());
        let trims = self.sender.poll_trims().into_iter();
        Some(trims.flat_map(|trim| self.spool.trim(trim)).collect())
    }

    /// Keeps the cursor.
    pub fn save(&mut self) {
        let cursor = self.sender.cursor();
        self.sender.on_saved(&cursor);
        self.spool.save(cursor);
    }

    /// Whether keeping the cursor changes anything.
    pub fn would_save(&self) -> bool {
        self.spool.would_change(&self.sender.cursor())
    }

    /// The connection is over.
    pub fn lose(&mut self) {
        self.sender.on_lost_at(self.now);
        self.link = None;
    }

    /// When something has waited long enough for another aggregator.
    pub fn waits_until(&self) -> Option<i64> {
        self.sender.poll_timeout()
    }

    /// Time goes on to there.
    pub fn on_time(&mut self, now: i64) {
        self.now = self.now.max(now);
        self.sender.on_time(self.now);
    }

    /// The power goes and comes: another life, another buffer.
    pub fn crash(&mut self, back: bool, scope: &Scope, seen: &mut Seen) {
        if back && self.spool.may_come_back() {
            seen.note(Happened::CameBack);
        }
        self.spool.after_power_cut(back);
        self.ends.push(0);
        self.link = None;
        self.begin(scope);
    }

    /// Whether everything left the spool.
    pub fn is_drained(&self) -> bool {
        self.sender.is_drained() && self.spool.items().next().is_none()
    }
}
