//! A real agent in its folder, and `buffer` on it: beside it, after it, and on what is broken.

use crate::deadletters::{MENDED, config, start};
use clap::Parser;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tributary_agent::commands::buffer::{self, BufferArguments};
use tributary_agent::commands::status::{self, StatusArguments};
use tributary_agent::spool;
use tributary_journal::{Disk, OsDisk};
use tributary_protocol::batch::{Kind, SealedBatch};
use tributary_protocol::ids::{BatchKey, BufferId, HashSum, Lane};
use tributary_protocol::ranges::Held;
use tributary_protocol::session::{AckedTo, LaneCursor, SenderCursor};
use tributary_uplink::Spool;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: BufferArguments,
}

#[derive(Parser)]
struct StatusProgram {
    #[command(flatten)]
    arguments: StatusArguments,
}

/// How a command went, and what it said on standard output and standard error.
async fn command(dir: &Path, arguments: &[&str]) -> (Result<bool, String>, String, String) {
    let program = Program::try_parse_from(["buffer"].iter().chain(arguments)).unwrap();
    let config = config(dir, MENDED);
    tokio::task::spawn_blocking(move || {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let done = buffer::run(&program.arguments, &config, &mut out, &mut notes);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            done.map_err(|error| error.to_string()),
            text(out),
            text(notes),
        )
    })
    .await
    .unwrap()
}

/// Runs an agent that seals `batches` batches of one reading each, and looks at it meanwhile.
async fn agent(dir: &Path, batches: u32) {
    let agent = start(dir, MENDED).await;
    for n in 0..batches {
        let payload = format!("{{\"v\": {n}}}");
        let topic = format!("plant/pump/m{n}");
        agent.publish(&[(&topic, payload.as_bytes())]).await;
        agent.latest(&format!("m{n}")).await;
    }
    let (done, said, _) = command(dir, &["verify"]).await;
    assert_eq!(done, Ok(true), "{said}");
    let (done, said, _) = command(dir, &["ls"]).await;
    assert_eq!(done, Ok(true));
    assert!(said.contains("spool/telemetry"), "{said}");
    let (done, ..) = command(dir, &["repair"]).await;
    let refused = done.unwrap_err();
    assert!(refused.contains("stop the agent first"), "{refused}");
    agent.end().await;
}

/// What `ls --json` says of the lane `telemetry`.
async fn telemetry(dir: &Path) -> Value {
    let (done, said, _) = command(dir, &["ls", "--json"]).await;
    assert_eq!(done, Ok(true));
    let mut lanes = said.lines().map(|line| serde_json::from_str(line).unwrap());
    lanes
        .find(|view: &Value| view["lane"] == "telemetry")
        .unwrap()
}

fn segment(dir: &Path, lane: &Value) -> PathBuf {
    let file = lane["segments"][0]["file"].as_str().unwrap();
    dir.join("spool/telemetry").join(file)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_lies_there_is_listed_verified_and_exported_beside_the_agent_and_after_it() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 3).await;
    let lane = telemetry(dir.path()).await;
    assert_eq!((&lane["first"], &lane["end"]), (&0.into(), &3.into()));
    assert_eq!(lane["waiting"], 3);
    let (done, said, notes) = command(dir.path(), &["export", "--output", "-"]).await;
    assert_eq!(done, Ok(true), "{notes}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("buffer,lane,batch,row,device,metric"));
    assert_eq!(
        lines.iter().filter(|line| line.contains(",pump,m")).count(),
        3
    );
    let range = [
        "export", "--output", "-", "--format", "jsonl", "--from", "1",
    ];
    let range: Vec<&str> = range.into_iter().chain(["--to", "2"]).collect();
    let (_, said, _) = command(dir.path(), &range).await;
    let line: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&line["batch"], &line["value"]), (&1.into(), &1.into()));
    assert_eq!(
        (&line["device"], &line["metric"]),
        (&"pump".into(), &"m1".into())
    );
    // Raw bytes are the batches themselves.
    let folder = dir.path().join("exported");
    let output = folder.to_str().unwrap();
    let raw = ["export", "--raw", "--lane", "telemetry", "--output", output];
    let (done, _, notes) = command(dir.path(), &raw).await;
    assert_eq!(done, Ok(true));
    assert!(notes.contains("3 batches"), "{notes}");
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let batch = SealedBatch::open(bytes.into()).unwrap();
        assert_eq!(batch.key().lane, Lane::Telemetry);
        numbers.push(batch.key().number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    // A folder that is there is not written into.
    let (done, ..) = command(dir.path(), &raw).await;
    assert!(done.unwrap_err().contains("not there yet"));
    let elsewhere = dir.path().join("nothing");
    let (done, ..) = command(&elsewhere, &["ls"]).await;
    assert!(done.unwrap_err().contains("no agent's data is there"));
    assert!(!elsewhere.exists(), "looking makes nothing");
}

#[tokio::test]
async fn the_status_of_a_stopped_agent_is_what_lies_there() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 2).await;
    for (more, expected) in [
        (&[][..], "batches 0..2"),
        (&["--json"][..], "\"running\":false"),
    ] {
        let program = StatusProgram::try_parse_from(["status"].iter().chain(more)).unwrap();
        let mut out = Vec::new();
        let done = status::run(&program.arguments, &config(dir.path(), MENDED), &mut out);
        let said = String::from_utf8(out).unwrap();
        assert!(done.unwrap_err().to_string().contains("no agent runs"));
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_status_says_that_what_is_stored_can_not_be_told() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    std::fs::write(dir.path().join("spool"), "no folder").unwrap();
    for (more, expected) in [(&[][..], "can't be told"), (&["--json"][..], "\"error\"")] {
        let program = StatusProgram::try_parse_from(["status"].iter().chain(more)).unwrap();
        let mut out = Vec::new();
        let done = status::run(&program.arguments, &config(dir.path(), MENDED), &mut out);
        let said = String::from_utf8(out).unwrap();
        assert!(done.unwrap_err().to_string().contains("no agent runs"));
        assert!(said.contains(expected) && said.contains("spool"), "{said}");
    }
}

#[tokio::test]
async fn a_damaged_batch_is_named_by_file_and_byte_and_declared_by_a_repair() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 4).await;
    let lane = telemetry(dir.path()).await;
    let path = segment(dir.path(), &lane);
    // The bytes of batch 1, by its export.
    let folder = dir.path().join("exported");
    let output = folder.to_str().unwrap();
    let raw = ["export", "--raw", "--lane", "telemetry", "--output", output];
    command(dir.path(), &raw).await.0.unwrap();
    let buffer: BufferId = lane["buffer"].as_str().unwrap().parse().unwrap();
    let name = format!("{buffer}-telemetry-{:020}.batch", 1);
    let batch = std::fs::read(folder.join(name)).unwrap();
    let segment = std::fs::read(&path).unwrap();
    let at = segment.windows(batch.len()).position(|it| it == batch);
    flip(&path, at.unwrap() + batch.len() / 2);

    let file = path.file_name().unwrap().to_str().unwrap();
    let (done, said, _) = command(dir.path(), &["verify"]).await;
    assert_eq!(done, Ok(false));
    let expected = format!("spool/telemetry/{file}, byte ");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains(&format!("{buffer} 1..2: a frame")), "{said}");
    let (done, said, notes) = command(dir.path(), &["export", "--output", "-"]).await;
    assert_eq!(done, Ok(false));
    assert!(notes.contains("1..2: damaged in"), "{notes}");
    assert_eq!(
        said.lines().filter(|line| line.contains(",pump,m")).count(),
        3
    );

    let before = std::fs::read(&path).unwrap();
    let (done, said, _) = command(dir.path(), &["repair", "--dry-run"]).await;
    assert_eq!(done, Ok(false));
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(!dir.path().join("spool/telemetry/quarantine").exists());
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(true));
    let declared = format!("{buffer} telemetry 1..2: declared lost (damaged)");
    assert!(said.contains(&declared), "{said}");
    // The bytes are kept, where they were and aside.
    let after = std::fs::read(&path).unwrap();
    assert!(
        before.starts_with(&after),
        "but for the room that was never written"
    );
    let kept = std::fs::read_dir(dir.path().join("spool/telemetry/quarantine"));
    assert_eq!(kept.unwrap().count(), 1);
    let lane = telemetry(dir.path()).await;
    assert_eq!(lane["gaps"][0]["reason"], "damaged");
    assert_eq!(lane["waiting"], 3);
    // What is declared is no fault any more.
    let (done, said, _) = command(dir.path(), &["verify"]).await;
    assert_eq!(done, Ok(true), "{said}");
    let expected = format!("nothing to do: {expected}");
    assert!(said.contains(&expected), "{said}");
    // Once more declares nothing more.
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(true));
    assert!(
        said.contains("every batch that is still to be sent"),
        "{said}"
    );

    // An agent that starts sends the gap in its place, and the others as they are.
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let (present, config) = (BufferId::new(1 << 40, 1), config(dir.path(), MENDED));
    let policies = spool::SpoolConfig {
        telemetry: config.spool.telemetry,
        ..spool::SpoolConfig::default()
    };
    let mut opened = spool::open(&disk, &spool::dir(dir.path()), present, &policies).unwrap();
    let kinds = (0..4).map(|number| {
        let key = BatchKey {
            buffer,
            lane: Lane::Telemetry,
            number,
        };
        opened.reader.read(key).unwrap().kind()
    });
    let expected = [Kind::Readings, Kind::Gap, Kind::Readings, Kind::Readings];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_segment_without_a_header_is_kept_aside_and_declared() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 2).await;
    let lane = telemetry(dir.path()).await;
    let path = segment(dir.path(), &lane);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (done, said, _) = command(dir.path(), &["verify"]).await;
    assert_eq!(done, Ok(false));
    assert!(said.contains("nobody knows how many"), "{said}");
    // Where there is no room for the copy, nothing is touched.
    let quarantine = dir.path().join("spool/telemetry/quarantine");
    std::fs::create_dir_all(&quarantine).unwrap();
    let filler = std::fs::File::create(quarantine.join("older.bad")).unwrap();
    filler.set_len(64 << 20).unwrap();
    let (done, ..) = command(dir.path(), &["repair"]).await;
    assert!(done.unwrap_err().contains("nothing was changed"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::remove_file(quarantine.join("older.bad")).unwrap();
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(true));
    assert!(said.contains("telemetry 0.."), "{said}");
    let (done, said, _) = command(dir.path(), &["verify"]).await;
    assert_eq!(done, Ok(true), "{said}");
    // What lies there already needs no room a second time.
    let filler = std::fs::File::create(quarantine.join("older.bad")).unwrap();
    filler.set_len((64 << 20) - bytes.len() as u64).unwrap();
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(true), "{said}");
    std::fs::remove_file(quarantine.join("older.bad")).unwrap();
    let kept = std::fs::read_dir(&quarantine).unwrap().next().unwrap();
    assert_eq!(std::fs::read(kept.unwrap().path()).unwrap(), bytes);
    let lane = telemetry(dir.path()).await;
    assert_eq!(lane["gaps"][0]["first"], 0);
}

/// A damaged frame whose bytes can't be copied aside is not declared: with the acknowledgement of
/// its gap they would go.
#[tokio::test]
async fn a_frame_of_which_no_copy_can_be_made_is_not_declared() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 3).await;
    let lane = telemetry(dir.path()).await;
    let path = segment(dir.path(), &lane);
    flip(&path, 4096 + 60);
    // No room for it: said before anything is done.
    let quarantine = dir.path().join("spool/telemetry/quarantine");
    std::fs::create_dir_all(&quarantine).unwrap();
    let filler = std::fs::File::create(quarantine.join("older.bad")).unwrap();
    filler.set_len((64 << 20) - 10).unwrap();
    let (done, ..) = command(dir.path(), &["repair"]).await;
    assert!(done.unwrap_err().contains("nothing was changed"));
    // A file where copies go.
    std::fs::remove_dir_all(&quarantine).unwrap();
    std::fs::write(&quarantine, b"in the way").unwrap();
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(false), "{said}");
    assert!(
        said.contains("could not be copied into quarantine/"),
        "{said}"
    );
    assert_eq!(telemetry(dir.path()).await["gaps"], serde_json::json!([]));
    std::fs::remove_file(&quarantine).unwrap();
    let (done, said, _) = command(dir.path(), &["repair"]).await;
    assert_eq!(done, Ok(true), "{said}");
    assert!(said.contains("0..1: declared lost"), "{said}");
}

/// Definitions of series are acknowledged nowhere: once all of their buffer is, nothing needs them.
#[tokio::test]
async fn definitions_that_nothing_needs_are_not_to_be_sent() {
    let dir = TempDir::new().unwrap();
    agent(dir.path(), 2).await;
    let series = async || {
        let (_, said, _) = command(dir.path(), &["ls", "--json"]).await;
        let mut views = said
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        views.find(|view| view["lane"] == "series").unwrap()
    };
    assert_ne!(series().await["waiting"], 0);
    let (_, said, _) = command(dir.path(), &["ls"]).await;
    assert!(
        said.contains("sent to each aggregator that lacks them"),
        "{said}"
    );
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let config = config(dir.path(), MENDED);
    let policies = spool::SpoolConfig {
        telemetry: config.spool.telemetry,
        ..spool::SpoolConfig::default()
    };
    let present = BufferId::new(1 << 40, 1);
    let mut opened = spool::open(&disk, &spool::dir(dir.path()), present, &policies).unwrap();
    let lanes = opened.reader.lane_starts().into_iter();
    let lanes = lanes.filter(|start| start.key.lane != Lane::Series);
    let lanes = lanes.map(|start| LaneCursor {
        key: start.key,
        by: AckedTo::Somebody,
        acked: vec![Held {
            first: start.first,
            end: start.end,
            sum: HashSum::default(),
        }],
    });
    let cursor = SenderCursor {
        lanes: lanes.collect(),
        ..SenderCursor::default()
    };
    opened.reader.save(&cursor)();
    drop(opened);
    assert_eq!(series().await["waiting"], 0);
    let (_, said, _) = command(dir.path(), &["ls"]).await;
    assert!(said.contains("nothing needs them any more"), "{said}");
}
