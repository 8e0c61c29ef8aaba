//! A device that publishes over MQTT, and the TCP connection it has: bytes in order, cut anywhere.
//! What is sent next is decided by the outbox of `firmware-sim`; the truth of what was published,
//! and of what the device was told, goes to the oracle.

use crate::mqtt::{self, Heard};
use crate::oracle::{Name, Oracle};
use crate::site::EPOCH_US;
use std::collections::VecDeque;
use tributary_agent::gateway::Gateway;
use tributary_agent::seal::Now;
use tributary_sim::client::{Outbox, Qos, Transmit};
use tributary_sim::reading::{Reading, Value};
use tributary_world::dice::Dice;

/// Bytes on their way, and when they arrive.
type Pipe = VecDeque<(i64, Vec<u8>)>;

/// One TCP connection.
#[derive(Debug)]
struct Tcp {
    door: u64,
    delay_us: i64,
    up: Pipe,
    down: Pipe,
    /// The agent's end was told that the device is gone, or will be.
    hangs_up_at: Option<i64>,
    /// CONNACK came.
    is_in: bool,
    heard: Vec<u8>,
}

/// A device.
pub struct Device {
    agent: usize,
    place: usize,
    seed: u64,
    outbox: Outbox,
    qos: u8,
    /// Whether its readings say their numbers.
    numbered: bool,
    tcp: Option<Tcp>,
    /// Connections that the device gave up, which the agent does not know yet.
    half_open: Vec<Tcp>,
    /// When it publishes next, and how many messages are left.
    next_at: i64,
    every_us: i64,
    left: u32,
    seq: u64,
    /// When it connects next.
    connect_at: i64,
    connects: u64,
    draws: u64,
}

/// Metrics of a device.
const METRICS: u64 = 3;

impl Device {
    /// A device of an agent, with so many messages to publish.
    pub fn new(
        seed: u64,
        (agent, place): (usize, usize),
        (messages, every_us, qos): (u32, i64, u8),
    ) -> Self {
        let entity = (agent * 16 + place) as u64;
        let mut dice = Dice::of(seed, "device", entity, 0);
        let kind = match qos {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        Self {
            agent,
            place,
            seed,
            outbox: Outbox::new(kind),
            qos,
            numbered: !(seed as usize + agent + place).is_multiple_of(3),
            tcp: None,
            half_open: Vec::new(),
            next_at: dice.us(0, 1 + every_us),
            every_us,
            left: messages,
            seq: 0,
            connect_at: dice.us(0, 200_000),
            connects: 0,
            draws: 0,
        }
    }

    fn dice(&mut self, purpose: &str) -> Dice {
        self.draws += 1;
        let entity = (self.agent * 16 + self.place) as u64;
        Dice::of(self.seed, purpose, entity, self.draws)
    }

    /// What it is called, as a client and in topics.
    fn client(&self) -> String {
        format!("a{}d{}", self.agent, self.place)
    }

    /// Whether it has said everything, and heard of it.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.outbox.is_empty()
    }

    /// What it still has to say, for people.
    pub fn left(&self) -> String {
        format!(
            "{}: {} to publish, {} queued, {} in flight, {}",
            self.client(),
            self.left,
            self.outbox.queued(),
            self.outbox.in_flight(),
            self.tcp.as_ref().map_or("alone", |tcp| match tcp.is_in {
                true => "connected",
                false => "connecting",
            })
        )
    }

    /// When it wants a turn.
    pub fn due(&self, is_up: bool) -> Option<i64> {
        let publishes = (self.left > 0).then_some(self.next_at);
        let mut at = publishes;
        let mut take = |other: Option<i64>| {
            at = match (at, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        match &self.tcp {
            None => take((is_up && !self.is_done()).then_some(self.connect_at)),
            Some(tcp) => take(tcp.due()),
        }
        self.half_open.iter().for_each(|tcp| take(tcp.due()));
        at
    }

    /// The agent's process is gone, and all connections with it. Some of what it said last may
    /// still arrive.
    pub fn agent_gone(&mut self, now: i64, oracle: &mut Oracle) {
        self.cut(now, oracle);
        self.half_open.clear();
    }

    /// Its connection is cut: it learns of it now.
    pub fn cut(&mut self, now: i64, oracle: &mut Oracle) {
        let mut dice = self.dice("cut");
        let Some(mut tcp) = self.tcp.take() else {
            return;
        };
        // What was under way arrives up to somewhere, at either end.
        let mut some: Vec<u8> = tcp.down.drain(..).flat_map(|(_, bytes)| bytes).collect();
        some.truncate(dice.below(some.len() as u64 + 1) as usize);
        tcp.heard.extend(some);
        self.hear(&mut tcp, oracle);
        self.outbox.disconnected();
        self.connect_at = now + dice.us(10_000, 1_500_000);
        let more: Vec<u8> = tcp.up.drain(..).flat_map(|(_, bytes)| bytes).collect();
        let upto = dice.below(more.len() as u64 + 1) as usize;
        if upto > 0 {
            tcp.up.push_back((now, more[..upto].to_vec()));
        }
        // The agent learns of it at once, or much later.
        let later = match dice.below(3) {
            0 => dice.us(1_000_000, 40_000_000),
            _ => dice.us(0, 300_000),
        };
        tcp.hangs_up_at = Some(now + later);
        self.half_open.push(tcp);
    }

    /// Does what is due, on both ends of its connections.
    pub fn turn(
        &mut self,
        mut gateway: Option<&mut Gateway>,
        (now, told, doors): (i64, Now, &mut u64),
        oracle: &mut Oracle,
    ) {
        while self.left > 0 && self.next_at <= now {
            self.publish(oracle);
        }
        if let Some(gateway) = gateway.as_deref_mut() {
            if self.tcp.is_none() && self.connect_at <= now && !self.is_done() {
                self.connect(gateway, (now, told, doors));
            }
            self.half_open.retain_mut(|tcp| tcp.arrive_up(gateway, now));
        }
        let Some(mut tcp) = self.tcp.take() else {
            return;
        };
        let mut lives = true;
        if let Some(gateway) = gateway {
            lives = tcp.arrive_up(gateway, now);
        }
        while tcp.down.front().is_some_and(|(at, _)| *at <= now) {
            let bytes = tcp.down.pop_front().map(|(_, bytes)| bytes);
            tcp.heard.extend(bytes.into_iter().flatten());
        }
        lives &= self.hear(&mut tcp, oracle);
        if !lives && tcp.down.is_empty() {
            self.outbox.disconnected();
            self.connect_at = now + self.dice("again").us(10_000, 1_000_000);
            return;
        }
        if tcp.is_in {
            self.transmit(&mut tcp, now);
        }
        self.tcp = Some(tcp);
    }

    /// Takes what the agent says on its way.
    pub fn listen(&mut self, gateway: &mut Gateway, now: i64) {
        if self.tcp.is_none() {
            return;
        }
        let wait = self.dice("down").us(0, 2_000);
        let Some(tcp) = &mut self.tcp else { return };
        let said = gateway.door(tcp.door).said();
        if !said.is_empty() {
            let last = tcp.down.back().map_or(now, |(at, _)| *at);
            let at = (now + tcp.delay_us + wait).max(last);
            tcp.down.push_back((at, said));
        }
    }

    fn publish(&mut self, oracle: &mut Oracle) {
        let series = self.seq % METRICS;
        let time_us = EPOCH_US + self.next_at / 1_000 * 1_000;
        let mut dice = Dice::of(
            self.seed,
            "value",
            (self.agent * 16 + self.place) as u64,
            self.seq,
        );
        let value = dice.below(1 << 40) as i64;
        let name = Name {
            agent: self.agent,
            device: self.client(),
            metric: format!("m{series}"),
            seq: self.seq as i64,
        };
        let how = (self.qos, self.numbered);
        oracle.published(name, time_us, format!("i64 {value}"), how);
        self.outbox.queue_mut().push_back(Reading {
            series: series as u32,
            seq: self.seq,
            time_us,
            value: Value::I64(value),
            written: None,
            fault: None,
        });
        self.seq += 1;
        self.left -= 1;
        let every = self.every_us;
        self.next_at += self.dice("next").us(every / 2, 1 + every * 3 / 2);
    }

    fn connect(&mut self, gateway: &mut Gateway, (now, told, doors): (i64, Now, &mut u64)) {
        self.connects += 1;
        let mut dice = self.dice("connect");
        *doors += 1;
        if !gateway.door(*doors).connect(told) {
            self.connect_at = now + dice.us(100_000, 1_000_000);
            return;
        }
        let delay_us = dice.us(50, 20_000);
        let mut tcp = Tcp {
            door: *doors,
            delay_us,
            up: Pipe::new(),
            down: Pipe::new(),
            hangs_up_at: None,
            is_in: false,
            heard: Vec::new(),
        };
        tcp.say(now, mqtt::connect(&self.client()));
        self.tcp = Some(tcp);
    }

    /// Understands what came; whether the connection goes on.
    fn hear(&mut self, tcp: &mut Tcp, oracle: &mut Oracle) -> bool {
        let heard = match mqtt::take(&mut tcp.heard) {
            Ok(heard) => heard,
            Err(error) => {
                oracle.odd(&format!("{} hears {error}", self.client()));
                return false;
            }
        };
        for packet in heard {
            let told = match packet {
                Heard::Connected { present } => {
                    self.outbox.connected(20, present);
                    tcp.is_in = true;
                    None
                }
                Heard::Acknowledged(pkid) => self.outbox.acknowledged(pkid),
                Heard::Received(pkid) => self.outbox.received(pkid),
                Heard::Completed(pkid) => {
                    self.outbox.completed(pkid);
                    None
                }
                Heard::Refused(_) => return false,
                Heard::Other(kind) => {
                    oracle.odd(&format!("{} hears {kind:02x}", self.client()));
                    return false;
                }
            };
            if let Some(reading) = told {
                oracle.told(&Name {
                    agent: self.agent,
                    device: self.client(),
                    metric: format!("m{}", reading.series),
                    seq: reading.seq as i64,
                });
            }
        }
        true
    }

    fn transmit(&mut self, tcp: &mut Tcp, now: i64) {
        let (qos, numbered, client) = (self.qos, self.numbered, self.client());
        while let Some(packet) = self.outbox.poll_transmit() {
            let bytes = match packet {
                Transmit::Release { pkid } => mqtt::release(pkid),
                Transmit::Publish { pkid, dup, reading } => {
                    let mut payload = Vec::new();
                    reading.write_json(None, numbered, &mut payload);
                    let topic = format!("{client}/m{}", reading.series);
                    mqtt::publish(&topic, &payload, (qos, pkid, dup))
                }
            };
            tcp.say(now, bytes);
        }
    }
}

impl Tcp {
    fn due(&self) -> Option<i64> {
        let ends = [self.up.front(), self.down.front()];
        let arrivals = ends.into_iter().flatten().map(|(at, _)| *at);
        arrivals.chain(self.hangs_up_at).min()
    }

    fn say(&mut self, now: i64, bytes: Vec<u8>) {
        let last = self.up.back().map_or(now, |(at, _)| *at);
        self.up.push_back(((now + self.delay_us).max(last), bytes));
    }

    /// Brings the agent what arrives by now; whether the connection goes on.
    fn arrive_up(&mut self, gateway: &mut Gateway, now: i64) -> bool {
        let mut door = gateway.door(self.door);
        if door.is_over() {
            return false;
        }
        while let Some((at, bytes)) = self.up.front_mut() {
            if *at > now {
                break;
            }
            let taken = door.bytes(bytes);
            bytes.drain(..taken);
            if !bytes.is_empty() {
                // Its window is closed: a little later.
                *at = now + 10_000;
                break;
            }
            self.up.pop_front();
        }
        if self.hangs_up_at.is_some_and(|at| at <= now) {
            door.hang_up();
            return false;
        }
        true
    }
}
