//! Connections, disks that take nothing for a while, and the end.

use super::*;

/// Mends the disk at its third call, or gives up.
#[derive(Debug)]
struct Patient {
    disk: SimDisk,
    calls: AtomicU32,
    mends: bool,
}

impl Pause for Patient {
    fn pause(&self, _: Duration) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls == 3 && self.mends {
            self.disk.fail_syncs(0);
        }
        self.mends || calls < 3
    }
}

/// What somebody drives by hand.
struct Driven {
    gateway: Gateway,
    now: i64,
}

impl Driven {
    fn new(disk: &SimDisk, pause: Arc<dyn Pause>) -> Self {
        Self {
            gateway: open(disk, pause, Arc::new(|_, _| {}), at(0)),
            now: 0,
        }
    }

    /// Turns until this long has passed.
    fn run(&mut self, us: i64) -> Result<(), PipelineError> {
        let end = self.now + us;
        loop {
            let due = self.gateway.due(at(self.now)).into_iter();
            let next = due.min_by_key(|(part, when)| (*when, *part));
            let Some((part, when)) = next.filter(|(_, when)| *when <= end) else {
                self.now = end;
                return Ok(());
            };
            self.now = when;
            self.gateway.turn(part, at(when))?;
        }
    }

    fn enter(&mut self, door: u64, client: &str) {
        assert!(self.gateway.door(door).connect(at(self.now)));
        self.gateway.door(door).bytes(&connect(client));
    }
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SECOND: i64 = 1_000_000;

#[test]
fn who_wants_a_session_is_let_in_once_the_log_is_replayed() {
    let disk = SimDisk::new(1);
    let mut driven = Driven::new(&disk, Arc::new(Never));
    driven.enter(1, "me");
    for _ in 0..20 {
        let now = at(driven.now);
        let due = driven.gateway.due(now).into_iter();
        let doors = due.filter(|(part, at)| *part == Part::Door(1) && *at <= driven.now);
        for (part, _) in doors {
            driven.gateway.turn(part, now).unwrap();
        }
    }
    assert_eq!(driven.gateway.door(1).said(), [0; 0]);
    driven.run(SECOND).unwrap();
    assert_eq!(driven.gateway.door(1).said(), CONNACK);
}

#[test]
fn a_client_that_comes_anew_takes_over_once_its_older_connection_is_over() {
    let disk = SimDisk::new(1);
    let mut driven = Driven::new(&disk, Arc::new(Never));
    driven.enter(1, "me");
    driven.run(SECOND).unwrap();
    assert_eq!(driven.gateway.door(1).said(), CONNACK);
    // What it had sent before it came anew is taken.
    driven.gateway.door(1).bytes(&publish(0, (1, 0), false));
    driven.enter(2, "me");
    driven.run(SECOND).unwrap();
    assert!(driven.gateway.door(1).is_over());
    let present = [0x20, 2, 1, 0];
    assert_eq!(driven.gateway.door(2).said(), present);
    driven.gateway.door(2).bytes(&publish(0, (1, 0), true));
    driven.run(5 * SECOND).unwrap();
    assert_eq!(driven.gateway.door(2).said(), [0x40, 2, 0, 1]);
    let rows = sealed(&mut driven.gateway);
    assert_eq!(rows.into_values().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_disk_that_takes_nothing_is_waited_for_as_long_as_it_is_said() {
    for mends in [true, false] {
        let disk = SimDisk::new(1);
        let pause = Arc::new(Patient {
            disk: disk.clone(),
            calls: AtomicU32::new(0),
            mends,
        });
        let mut driven = Driven::new(&disk, pause.clone());
        driven.enter(1, "me");
        driven.run(SECOND).unwrap();
        driven.gateway.door(1).bytes(&publish(0, (1, 0), false));
        driven.run(SECOND / 4).unwrap();
        assert_eq!(driven.gateway.door(1).said()[4..], [0x40, 2, 0, 1]);
        // It is durable in the log, and due in the spool.
        disk.fail_syncs(u32::MAX);
        let ran = driven.run(3 * SECOND);
        assert_eq!(pause.calls.load(Ordering::Relaxed), 3);
        if mends {
            ran.unwrap();
            assert_eq!(sealed(&mut driven.gateway).len(), 1);
            continue;
        }
        assert!(matches!(ran, Err(PipelineError::Stage(_))), "{ran:?}");
        drop(driven);
        let disk = disk.kill();
        disk.fail_syncs(0);
        let mut driven = Driven::new(&disk, Arc::new(Never));
        driven.run(3 * SECOND).unwrap();
        assert_eq!(sealed(&mut driven.gateway).len(), 1, "at the next start");
    }
}

#[test]
fn a_gateway_that_stops_seals_what_it_took_in() {
    let disk = SimDisk::new(1);
    let mut driven = Driven::new(&disk, Arc::new(Never));
    driven.enter(1, "me");
    driven.run(SECOND).unwrap();
    driven.gateway.door(1).bytes(&publish(0, (1, 0), false));
    let now = at(driven.now);
    driven.gateway.turn(Part::Door(1), now).unwrap();
    assert_eq!(driven.gateway.door(1).said(), CONNACK);
    driven.gateway.stop();
    assert!(!driven.gateway.has_ended());
    driven.run(SECOND).unwrap();
    assert!(driven.gateway.has_ended());
    assert_eq!(sealed(&mut driven.gateway).len(), 1);
}
