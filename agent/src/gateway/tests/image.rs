//! A gateway whose disk is put back from an image, taken while messages were acknowledged and not
//! sealed: both lives seal them, and they arrive once.

use super::*;
use tributary_protocol::batch::Kind;

/// What was acknowledged by devices, by name and number.
type Heard = Vec<(String, i64)>;

impl World {
    /// Messages and turns for a while, without a power cut.
    fn goes_on(&mut self, gateway: &mut Gateway, turns: u64) {
        for _ in 0..turns {
            if self.random.below(6) == 0 {
                self.device_does_something(gateway);
            }
            self.step(gateway).unwrap();
        }
    }

    fn heard_by_devices(&self) -> Heard {
        let devices = self.devices.iter();
        let heard = devices.flat_map(|device| {
            let name = format!("site/d{}", device.number);
            let acknowledged = device.acknowledged.iter();
            acknowledged.map(move |seq| (name.clone(), *seq))
        });
        heard.collect()
    }

    /// Another disk takes the place of this one. What devices have no answer to, nobody knows
    /// whether it was taken: they say other things from now on.
    fn swap(&mut self, disk: SimDisk) -> SimDisk {
        let before = std::mem::replace(&mut self.disk, disk);
        for device in &mut self.devices {
            device.gone();
            device.outbox.clear();
            device.next_seq += 100;
        }
        self.site.cut();
        self.now += 1_000_000;
        before
    }
}

/// A run in which the original goes on for so many turns after its image was taken, and then the
/// image; gives the world, and what was acknowledged by the image or before it was taken.
fn restored(seed: u64) -> (World, Heard) {
    let mut world = World::new(seed);
    world.life();
    world.cut();
    let mut gateway = world.open();
    let turns = 200 + world.random.below(1_500);
    world.goes_on(&mut gateway, turns);
    let (image, heard) = (
        world.disk.fork(Salts::Other(seed)),
        world.heard_by_devices(),
    );
    let image = image.crash(match world.random.below(2) {
        0 => Survival::Nothing,
        _ => Survival::All,
    });
    let turns = world.random.below(2_000);
    world.goes_on(&mut gateway, turns);
    drop(gateway);
    let until_then = world.heard_by_devices();
    world.swap(image);
    for _ in 0..2 {
        world.life();
        world.cut();
    }
    world.heal();
    let by_the_image = world.heard_by_devices().into_iter();
    let by_the_image = by_the_image.filter(|reading| !until_then.contains(reading));
    let heard = heard.into_iter().chain(by_the_image).collect();
    (world, heard)
}

#[test]
fn what_an_image_brings_back_arrives_once() {
    let (mut whole, mut parted) = (0, 0);
    for seed in 0..24 {
        let (world, heard) = restored(seed);
        let rows = rows_of(&world.site.journal);
        let twice: Vec<_> = rows.iter().filter(|(_, times)| **times > 1).collect();
        assert_eq!(twice, [], "seed {seed}: arrived twice");
        for reading in heard {
            assert!(
                rows.contains_key(&reading),
                "seed {seed}: {reading:?} is lost"
            );
        }
        assert_eq!(world.site.doubled, 0, "seed {seed}");
        let readings = |batch: &&SealedBatch| batch.kind() == Kind::Readings;
        let again = world.site.journal.iter().filter(readings);
        // What is sealed again says beside its covers how far its lane is.
        let marked = |batch: &&SealedBatch| batch.covers().iter().any(|cover| cover.count == 0);
        parted += again.filter(marked).count();
        whole += world.site.covered.len();
    }
    assert!(whole > 10 && parted > 5, "{whole} {parted}");
}

#[cfg(feature = "planted")]
#[test]
fn planted_bugs_of_what_is_replaced_are_found() {
    tributary_planted::plant(Some(tributary_planted::Bug::CoveredDropsRest));
    let loses = |seed: &u64| {
        let (world, heard) = restored(*seed);
        let rows = rows_of(&world.site.journal);
        heard.iter().any(|reading| !rows.contains_key(reading))
    };
    assert_ne!((0..60).find(loses), None, "in 60 seeds");
    tributary_planted::plant(None);
}

/// A run in which the image goes on, and then, when it has gone, the original.
fn twins(seed: u64) -> (World, Heard) {
    let mut world = World::new(seed);
    let mut gateway = world.open();
    let turns = 200 + world.random.below(1_500);
    world.goes_on(&mut gateway, turns);
    let heard = world.heard_by_devices();
    let image = world.disk.fork(Salts::Other(seed)).crash(Survival::All);
    let turns = world.random.below(500);
    world.goes_on(&mut gateway, turns);
    drop(gateway);
    let original = world.swap(image);
    world.life();
    world.cut();
    world.swap(original.crash(Survival::All));
    world.heal();
    (world, heard)
}

/// What a machine sealed of its own can't be told apart by message: where some of it is stored
/// already, all of it is, and that is said.
#[test]
fn what_the_original_brings_behind_its_image_arrives_once_or_is_told() {
    let (mut covered, mut told) = (0, 0);
    for seed in 100..116 {
        let (world, heard) = twins(seed);
        let rows = rows_of(&world.site.journal);
        let twice = rows.values().filter(|times| **times > 1).count() as u64;
        assert!(
            twice <= world.site.doubled,
            "seed {seed}: {twice} in silence"
        );
        for reading in heard {
            assert!(
                rows.contains_key(&reading),
                "seed {seed}: {reading:?} is lost"
            );
        }
        covered += world.site.covered.len();
        told += u32::from(world.site.doubled > 0);
    }
    assert!(covered > 1 && told > 0, "{covered} {told}");
}
