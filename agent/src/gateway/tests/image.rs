//! A gateway whose disk is put back from an image, taken while messages were acknowledged and not
//! sealed: both lives seal them, and what arrives twice is marked.

use super::*;

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

/// What was acknowledged is there; of what is there twice, one copy at most is not marked. Gives
/// how many readings are there twice.
fn check(world: &World, heard: Heard, seed: u64) -> usize {
    let (journal, marked) = (&world.site.journal, &world.site.marked);
    let rows = rows_of(journal);
    for reading in heard {
        assert!(
            rows.contains_key(&reading),
            "seed {seed}: {reading:?} is lost"
        );
    }
    let plain = journal.iter().filter(|it| !marked.contains(&it.key()));
    let plain: Vec<_> = plain.cloned().collect();
    let silent = rows_of(&plain).into_iter().filter(|(_, times)| *times > 1);
    let silent: Vec<_> = silent.collect();
    assert_eq!(silent, [], "seed {seed}: there twice in silence");
    rows.values().filter(|times| **times > 1).count()
}

#[test]
fn what_an_image_brings_back_arrives_and_a_second_copy_is_marked() {
    let mut twice = 0;
    for seed in 0..24 {
        let (world, heard) = restored(seed);
        twice += check(&world, heard, seed);
    }
    assert!(twice > 20, "{twice}");
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

#[test]
fn what_the_original_brings_behind_its_image_arrives_and_a_second_copy_is_marked() {
    let mut twice = 0;
    for seed in 100..116 {
        let (world, heard) = twins(seed);
        twice += check(&world, heard, seed);
    }
    assert!(twice > 20, "{twice}");
}
