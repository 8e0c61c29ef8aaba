//! Each message is read by the rules that it came under, whatever is configured by the time it is
//! read, and whenever the power fails; and what happens when nobody knows those rules any more.

use super::*;
use std::path::PathBuf;

/// Rules that put `name` before each device.
fn named(name: &str) -> Arc<Rules> {
    let text = format!(
        "[[decode]]\ntopic = \"site/{{device}}/{{metric}}\"\ndevice = \"{name}/{{device}}\"\n"
    );
    Rules::parse(&text).unwrap()
}

fn text_of(rules: &Rules) -> PathBuf {
    Path::new(DATA)
        .join("config")
        .join(format!("{}.toml", rules.hash()))
}

impl Life {
    /// A life as the pipeline begins it: the text is durable, then the log names it, and what the
    /// log held before is replayed. `None`: the disk gave up.
    fn under(disk: &Arc<dyn Disk>, rules: &Arc<Rules>) -> Option<Self> {
        let (mut life, wal) = Self::logged_under(disk, rules)?;
        life.replay(wal)?;
        // As in the pipeline: it is the first record, and comes to the stage behind the replay.
        life.commit_as(
            RecordKind::Configuration,
            &[Announcement(rules.hash()).write()],
        )?;
        Some(life)
    }

    fn logged_under(disk: &Arc<dyn Disk>, rules: &Arc<Rules>) -> Option<(Self, LogReader)> {
        let texts = Texts::open(Arc::clone(disk), &Path::new(DATA).join("config")).ok()?;
        texts.keep(rules).ok()?;
        Some(Self::open_with(disk, rules))
    }

    fn arrived(&mut self) -> Vec<(String, i64)> {
        let mut arrived = Arrived::default();
        let lanes = lanes_of(self);
        arrived.collect(&mut self.spool, &lanes).unwrap();
        arrived.rows.into_keys().collect()
    }

    /// Reasons and topics of all dead letters.
    fn buried(&self) -> Vec<(String, String, Vec<u8>)> {
        let mut all = Vec::new();
        for span in self.stage.dead.reader().lives() {
            let mut entries = Vec::new();
            if span.first < span.end {
                let reader = self.stage.dead.reader();
                reader
                    .read(span.life, span.first, usize::MAX >> 1, &mut entries)
                    .unwrap();
            }
            for entry in entries {
                let letter = Letter::read(&entry.bytes).unwrap();
                let text = (letter.reason.to_owned(), letter.topic.to_owned());
                all.push((text.0, text.1, letter.payload.to_vec()));
            }
        }
        all
    }
}

fn good(device: u64, seq: i64) -> Vec<u8> {
    let payload = format!("{{\"value\":{seq},\"seq\":{seq}}}");
    record(
        &format!("site/d{device}/m"),
        payload.as_bytes(),
        (seq % 60_000 + 1) as u16,
    )
}

fn pairs(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter()
        .map(|(name, seq)| ((*name).to_owned(), *seq))
        .collect()
}

#[test]
fn a_message_that_was_logged_under_other_rules_is_read_by_them() {
    let sim = Arc::new(SimDisk::new(11));
    let disk: Arc<dyn Disk> = sim.clone();
    let mut life = Life::under(&disk, &named("a")).unwrap();
    life.commit(&[good(1, 1), good(1, 2)]).unwrap();
    // Nothing is sealed, and there is no checkpoint.
    drop(life);
    let crashed: Arc<dyn Disk> = Arc::new(sim.crash(Survival::Nothing));
    let mut life = Life::under(&crashed, &named("b")).unwrap();
    life.commit(&[good(1, 3)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(
        life.arrived(),
        pairs(&[("a/d1", 1), ("a/d1", 2), ("b/d1", 3)])
    );
    // And the other way round, from a checkpoint that was taken under `b`.
    life.commit(&[good(1, 4)]).unwrap();
    drop(life);
    let mut life = Life::under(&crashed, &Rules::builtin()).unwrap();
    life.commit(&[good(1, 5)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(
        life.arrived(),
        pairs(&[
            ("a/d1", 1),
            ("a/d1", 2),
            ("b/d1", 3),
            ("b/d1", 4),
            ("site/d1", 5)
        ])
    );
    assert!(life.buried().is_empty());
}

/// Messages logged under `a`, a crash, something happens to the text of `a`, a start under `b`.
fn after(happens: impl FnOnce(&SimDisk, &Path)) -> Life {
    let sim = Arc::new(SimDisk::new(12));
    let disk: Arc<dyn Disk> = sim.clone();
    let mut life = Life::under(&disk, &named("a")).unwrap();
    life.commit(&[good(1, 1)]).unwrap();
    drop(life);
    happens(&sim, &text_of(&named("a")));
    let mut life = Life::under(&disk, &named("b")).unwrap();
    life.commit(&[good(1, 2)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    life
}

#[test]
fn messages_whose_rules_are_lost_are_dead_letters_and_never_read_by_others() {
    for mut life in [
        after(|disk, text| disk.remove(text).unwrap()),
        after(|disk, text| disk.flip_bit(text, 30, 3)),
        after(|disk, text| disk.open(text).unwrap().truncate(20).unwrap()),
        after(|disk, text| disk.open(text).unwrap().write_at(b"\xff", 7).unwrap()),
    ] {
        assert_eq!(life.arrived(), pairs(&[("b/d1", 2)]));
        let buried = life.buried();
        assert_eq!(buried.len(), 1);
        let (reason, topic, payload) = &buried[0];
        assert!(
            reason.contains("rules that it came under are lost"),
            "{reason}"
        );
        assert_eq!(
            (&**topic, &**payload),
            ("site/d1/m", &b"{\"value\":1,\"seq\":1}"[..])
        );
    }
}

#[test]
fn a_lost_text_that_is_configured_again_is_no_loss() {
    let sim = Arc::new(SimDisk::new(13));
    let disk: Arc<dyn Disk> = sim.clone();
    let mut life = Life::under(&disk, &named("a")).unwrap();
    life.commit(&[good(1, 1)]).unwrap();
    drop(life);
    sim.flip_bit(&text_of(&named("a")), 30, 3);
    let mut life = Life::under(&disk, &named("a")).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert_eq!(life.arrived(), pairs(&[("a/d1", 1)]));
    drop(life);
    // The text was written anew.
    let mut life = Life::under(&disk, &named("b")).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert!(life.buried().is_empty());
}

#[test]
fn a_life_whose_first_record_is_damaged_has_lost_its_rules() {
    let sim = Arc::new(SimDisk::new(14));
    let disk: Arc<dyn Disk> = sim.clone();
    let (mut life, log) = Life::logged_under(&disk, &named("a")).unwrap();
    let hash = named("a").hash();
    life.commit_as(RecordKind::Configuration, &[Announcement(hash).write()])
        .unwrap();
    life.commit(&[good(1, 1)]).unwrap();
    let wal = log.segments().remove(0).path;
    drop(life);
    let bytes = sim.contents(&wal).unwrap();
    let at = bytes
        .windows(32)
        .position(|window| window == hash.0)
        .unwrap();
    sim.flip_bit(&wal, at as u64, 0);
    let mut life = Life::under(&disk, &named("b")).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert!(life.arrived().is_empty());
    assert_eq!(life.buried().len(), 1);
    let mut arrived = Arrived::default();
    let lanes = lanes_of(&life);
    arrived.collect(&mut life.spool, &lanes).unwrap();
    assert_eq!(arrived.gaps.len(), 1, "the record itself is declared");
}

#[test]
fn a_text_goes_when_no_checkpoint_and_no_frame_needs_it_and_not_before() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(15));
    let held = |rules: &Rules| disk.open(&text_of(rules)).is_ok();
    let (a, b) = (named("a"), named("b"));
    let mut life = Life::under(&disk, &a).unwrap();
    life.commit(&[good(1, 1)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    drop(life);
    let mut life = Life::under(&disk, &b).unwrap();
    life.commit(&[good(1, 2)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert!(held(&a), "the older of two checkpoints stands under it");
    life.commit(&[good(1, 3)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert!(!held(&a) && held(&b));
    drop(life);
    let mut life = Life::under(&disk, &Rules::builtin()).unwrap();
    assert!(held(&b));
    for seq in 4..6 {
        life.commit(&[good(1, seq)]).unwrap();
        life.stage.finish(life.now()).unwrap();
    }
    assert!(!held(&b));
}

#[test]
fn rules_that_change_with_every_life_are_a_bounded_number_of_texts() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(16));
    for life_number in 0..100i64 {
        let mut life = Life::under(&disk, &named(&format!("r{life_number}"))).unwrap();
        life.commit(&[good(1, life_number)]).unwrap();
    }
    let texts = disk.list(&Path::new(DATA).join("config")).unwrap();
    assert!(
        texts.len() <= crate::limits::CONFIGURATIONS_MAX + 2,
        "{}",
        texts.len()
    );
    let mut life = Life::under(&disk, &named("last")).unwrap();
    life.stage.finish(life.now()).unwrap();
    let expected: BTreeMap<String, i64> = (0..100)
        .map(|number| (format!("r{number}/d1"), number))
        .collect();
    let arrived: BTreeMap<String, i64> = life.arrived().into_iter().collect();
    assert_eq!(arrived, expected);
    assert!(life.buried().is_empty());
}

/// Lives under changing rules that all end by a power cut somewhere.
fn cut(seed: u64) {
    let mut disk = Arc::new(SimDisk::new(seed));
    let mut random = Random(seed * 2 + 1);
    let rules: Vec<Arc<Rules>> = ["a", "b", "c"].map(named).into();
    // By sequence number: under which rules it was sent, and under which it was acknowledged.
    let mut sent: BTreeMap<i64, (Vec<usize>, Option<usize>)> = BTreeMap::new();
    let mut next = 0;
    for _ in 0..10 {
        let dynamic: Arc<dyn Disk> = disk.clone();
        let which = random.below(3) as usize;
        disk.power_off_after(1 + random.below(20));
        // The stores of a life open on a disk that works; before them the text may meet the cut.
        let texts = Texts::open(Arc::clone(&dynamic), &Path::new(DATA).join("config"));
        let kept = texts.is_ok_and(|texts| texts.keep(&rules[which]).is_ok());
        if !kept {
            disk = crash(&disk, &mut random, seed);
            continue;
        }
        disk.power_off_after(1 << 40);
        let (mut life, wal) = Life::open_with(&dynamic, &rules[which]);
        disk.power_off_after(1 + random.below(90));
        let announcement = [Announcement(rules[which].hash()).write()];
        let mut powered = life.replay(wal).is_some()
            && life
                .commit_as(RecordKind::Configuration, &announcement)
                .is_some();
        while powered {
            let mut frame = Vec::new();
            let mut seqs = Vec::new();
            for (seq, (under, acked)) in &mut sent {
                if acked.is_none() {
                    under.push(which);
                    frame.push(message(1, *seq, true));
                    seqs.push(*seq);
                }
            }
            for _ in 0..=random.below(5) {
                if next % 10 < 8 {
                    sent.insert(next, (vec![which], None));
                    frame.push(message(1, next, false));
                    seqs.push(next);
                }
                next += 1;
            }
            life.now += 400;
            powered = frame.is_empty() || life.commit(&frame).is_some();
            if powered {
                for seq in seqs {
                    sent.get_mut(&seq).unwrap().1 = Some(which);
                }
                powered = stored(life.stage.tick(life.now())).is_some();
            }
        }
        drop(life);
        disk = crash(&disk, &mut random, seed);
    }
    let dynamic: Arc<dyn Disk> = disk;
    let mut life = Life::under(&dynamic, &Rules::builtin()).unwrap();
    life.stage.finish(life.now()).unwrap();
    assert!(life.buried().is_empty(), "seed {seed}");
    let mut arrived = BTreeMap::new();
    for (device, seq) in life.arrived() {
        let copies = arrived.insert(seq, device);
        assert_eq!(copies, None, "seed {seed}: {seq} came twice");
    }
    for (seq, (under, acked)) in sent {
        let device = arrived.remove(&seq);
        assert!(
            device.is_some() || acked.is_none(),
            "seed {seed}: {seq} is lost"
        );
        if let Some(device) = device {
            let by = ["a/d1", "b/d1", "c/d1"]
                .iter()
                .position(|name| *name == device);
            assert!(
                under.contains(&by.unwrap()),
                "seed {seed}: {seq} {device} {under:?}"
            );
            if under.len() == 1 {
                assert_eq!(by, Some(under[0]), "seed {seed}: {seq}");
            }
        }
    }
}

#[test]
fn whenever_the_power_fails_every_message_is_read_by_rules_it_was_sent_under() {
    for seed in 0..12 {
        cut(seed);
    }
}
