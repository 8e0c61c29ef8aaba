//! A real agent in its folder, and the commands on it: what they show of it, and that a letter
//! which is put back is read once, by the rules of then or now, with the time it was received at.

use clap::Parser;
use rumqttc::mqttbytes::{QoS, v4};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tributary_agent::commands::deadletter::{self, DeadLetterArguments};
use tributary_agent::config::Config;
use tributary_agent::deadletter::{DeadLetters, Letter};
use tributary_agent::decode::UserProperties;
use tributary_agent::pipeline::{self, Agent, Settings};
use tributary_agent::seal::Origin;
use tributary_journal::{Disk, OsDisk};
use tributary_protocol::ids::BufferId;

/// Pointers that lead nowhere, and ones that do.
const BROKEN: &str = "[[decode]]\ntopic = \"plant/{device}/{metric}\"\nvalue = \"/w\"\n";
pub const MENDED: &str = "[[decode]]\ntopic = \"plant/{device}/{metric}\"\nvalue = \"/v\"\n";

pub fn config(dir: &Path, rules: &str) -> Config {
    let text = format!(
        "{rules}[agent]\ndata_dir = \"{}\"\n[source.listener]\naddress = \"127.0.0.1:0\"\n\
         [http]\naddress = \"127.0.0.1:0\"\n",
        dir.display()
    );
    Config::parse(&text, []).unwrap()
}

pub struct Running {
    pub agent: Agent,
    stop: CancellationToken,
}

pub async fn start(dir: &Path, rules: &str) -> Running {
    let settings = Settings::from_config(&config(dir, rules));
    let stop = CancellationToken::new();
    let agent = pipeline::start(settings, stop.clone()).await.unwrap();
    Running { agent, stop }
}

impl Running {
    pub async fn end(self) {
        self.stop.cancel();
        self.agent.join().await.unwrap();
    }

    /// Publishes, and waits for each PUBACK.
    pub async fn publish(&self, messages: &[(&str, &[u8])]) {
        let mut stream = TcpStream::connect(self.agent.mqtt).await.unwrap();
        let mut bytes = bytes::BytesMut::new();
        v4::Connect::new("device").write(&mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
        for (id, (topic, payload)) in (1..).zip(messages) {
            let mut packet = v4::Publish::new(*topic, QoS::AtLeastOnce, *payload);
            packet.pkid = id;
            let mut bytes = bytes::BytesMut::new();
            packet.write(&mut bytes).unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [0x40, 2, 0, id as u8]);
        }
    }

    /// The newest value of a metric, once it is sealed, and when that was received.
    pub async fn latest(&self, metric: &str) -> (String, i64) {
        loop {
            let all = self.agent.latest.list(99).into_iter();
            if let Some(found) = all.into_iter().find(|latest| &*latest.metric == metric) {
                return (found.value, found.received_time);
            }
            // tidy: sleep because sealing tells nobody: it is looked for until it is there.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: DeadLetterArguments,
}

/// How a command went, and what it said on standard output and standard error.
async fn command(
    dir: &Path,
    rules: &str,
    arguments: &[&str],
) -> (Result<bool, String>, String, String) {
    let program = Program::try_parse_from(["deadletter"].iter().chain(arguments)).unwrap();
    let config = config(dir, rules);
    tokio::task::spawn_blocking(move || {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let done = deadletter::run(program.arguments, &config, &mut out, &mut notes);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            done.map_err(|error| format!("{error:#}")),
            text(out),
            text(notes),
        )
    })
    .await
    .unwrap()
}

async fn objects(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let (done, out, _) = command(dir, "", arguments).await;
    done.unwrap();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The letters of a running agent, once there are so many.
async fn letters(dir: &Path, count: usize) -> Vec<Value> {
    loop {
        let all = objects(dir, &["ls", "--json", "--oldest-first", "--limit", "0"]).await;
        if all.len() >= count {
            return all;
        }
        // tidy: sleep because a letter that is durable is told to nobody.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn texts<'a>(letters: &'a [Value], key: &str) -> Vec<&'a str> {
    letters
        .iter()
        .map(|letter| letter[key].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_shown_exported_and_put_back_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let running = start(dir, BROKEN).await;
    let large = vec![b'x'; 300_000];
    running
        .publish(&[
            ("plant/p/temp", b"{\"v\":21.5}"),
            ("plant/p/\u{1f}odd", b"1"),
            ("plant/p/rpm", b"{\"v\":1480}"),
            ("plant/p/photo", &large),
        ])
        .await;
    let all = letters(dir, 4).await;
    assert_eq!(
        texts(&all, "reason"),
        ["missing", "name", "missing", "too_large"]
    );
    assert_eq!(texts(&all, "topic")[1], "plant/p/\u{1f}odd");
    assert_eq!(all[3]["whole"], false);
    assert!(all.iter().all(|letter| letter["put_back"] == false));

    // Selections, while it runs.
    let chosen = objects(
        dir,
        &["ls", "--json", "--reason", "missing", "--limit", "1"],
    )
    .await;
    assert_eq!(texts(&chosen, "topic"), ["plant/p/rpm"], "the newest first");
    let chosen = objects(dir, &["ls", "--json", "--topic", "plant/+/temp"]).await;
    assert_eq!(texts(&chosen, "id"), [all[0]["id"].as_str().unwrap()]);
    let (_, text, _) = command(dir, "", &["ls", "--id", all[1]["id"].as_str().unwrap()]).await;
    assert!(text.contains("  name  plant/p/\\u{1f}odd  1 B  "), "{text}");

    // By the same rules they are dead letters again, and those are others.
    let (done, out, _) = command(dir, BROKEN, &["replay", "--topic", "plant/p/rpm"]).await;
    assert_eq!(done, Ok(false));
    assert!(
        out.starts_with("1 put back\n1 of them are dead letters again"),
        "{out}"
    );
    let all = letters(dir, 5).await;
    assert_eq!(texts(&all, "topic")[4], "plant/p/rpm");
    running.end().await;

    let (done, _, _) = command(dir, MENDED, &["replay"]).await;
    assert!(done.unwrap_err().contains("no agent runs on"));
    let ended = objects(dir, &["ls", "--json", "--oldest-first"]).await;
    let put_back: Vec<bool> = ended
        .iter()
        .map(|l| l["put_back"].as_bool().unwrap())
        .collect();
    assert_eq!(put_back, [false, false, true, false, false]);
    try_out_and_export(dir).await;

    let running = start(dir, MENDED).await;
    let arguments = [
        "replay",
        "--json",
        "--reason",
        "missing",
        "--reason",
        "too_large",
    ];
    let outcome = objects_by(dir, MENDED, &arguments).await;
    let expected = "{\"put_back\":2,\"dead_again\":0,\"before\":1,\"only_head\":1,\"gone\":0,\
                    \"unreadable\":0}";
    assert_eq!(outcome, expected);
    let outcome = objects_by(dir, MENDED, &arguments).await;
    assert!(
        outcome.starts_with("{\"put_back\":0,\"dead_again\":0,\"before\":3,"),
        "{outcome}"
    );
    assert_eq!(running.latest("rpm").await.0, "1480");
    let (value, received) = running.latest("temp").await;
    assert_eq!(value, "21.5");
    let then = texts(&all, "received_time")[0];
    assert_eq!(deadletter_time(received), then, "the time of then");
    running.end().await;
    let restarted = start(dir, MENDED).await;
    let outcome = objects_by(dir, MENDED, &arguments).await;
    assert!(
        outcome.starts_with("{\"put_back\":0,\"dead_again\":0,\"before\":3,"),
        "{outcome}"
    );
    restarted.end().await;
}

fn deadletter_time(received: i64) -> String {
    tributary_agent::civil::rfc3339(received)
}

async fn objects_by(dir: &Path, rules: &str, arguments: &[&str]) -> String {
    let (done, out, notes) = command(dir, rules, arguments).await;
    assert_eq!(done, Ok(true), "{out}{notes}");
    out.trim().to_owned()
}

/// Without an agent: what would come out, and everything as files and as lines.
async fn try_out_and_export(dir: &Path) {
    let (done, out, notes) = command(dir, MENDED, &["replay", "--dry-run"]).await;
    assert_eq!(done, Ok(false));
    assert!(
        out.contains("by `plant/{device}/{metric}`, 1 readings:\n"),
        "{out}"
    );
    assert!(out.contains("  p  temp  21.5"), "{out}");
    assert!(
        notes.contains("2 would give readings, 2 would not; nothing was put back"),
        "{notes}"
    );

    let lines = objects(dir, &["export", "--output", "-", "--topic", "plant/p/temp"]).await;
    assert_eq!(texts(&lines, "payload"), ["eyJ2IjoyMS41fQ=="]);
    let output = dir.join("exported");
    let output = output.to_str().unwrap();
    let (done, _, notes) = command(dir, "", &["export", "--output", output]).await;
    assert_eq!(done, Ok(true), "{notes}");
    let list = std::fs::read_to_string(format!("{output}/letters.jsonl")).unwrap();
    let list: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(list.len(), 5);
    let file = texts(&list, "file")[0];
    assert_eq!(
        std::fs::read(format!("{output}/{file}")).unwrap(),
        b"{\"v\":21.5}"
    );
    assert_eq!(std::fs::read_dir(output).unwrap().count(), 6);
    // It would overwrite what is there.
    let (done, _, _) = command(dir, "", &["export", "--output", output]).await;
    assert!(done.unwrap_err().contains("not there yet"));
}

#[tokio::test]
async fn what_was_given_up_for_lack_of_room_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let letters = dir.path().join("deadletter");
    let buffer = BufferId::new(1, 1);
    let payload = vec![b'{'; 250_000];
    let open = |life| DeadLetters::open(&disk, &letters, BufferId::new(life, 1), 0).unwrap();
    let mut dead = open(1);
    for number in 0..300 {
        dead.push(
            &Letter {
                origin: Origin { buffer, number },
                received_time: 1_769_848_199_000_000 + number as i64,
                word: "json",
                reason: "malformed",
                will: false,
                topic: "a/b",
                properties: UserProperties::NONE,
                payload: &payload,
            },
            None,
        )
        .unwrap();
        dead.flush().unwrap();
        dead.make_room(Origin {
            buffer,
            number: number + 1,
        });
    }
    drop(dead);
    // Also when it was opened since.
    drop(open(2));
    let (done, out, notes) = command(dir.path(), "", &["ls", "--limit", "0"]).await;
    assert_eq!(done, Ok(true));
    let gone = 300 - out.lines().count();
    let expected = format!(
        "{gone} were given up for lack of room, received from 2026-01-31T08:29:59.000Z to \
         2026-01-31T08:29:59.000Z; those that held readings are declared lost\n"
    );
    assert!(gone > 0 && notes.contains(&expected), "{gone}: {notes}");
}

#[tokio::test]
async fn a_folder_without_an_agents_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (done, _, _) = command(dir.path(), "", &["ls"]).await;
    let said = done.unwrap_err();
    assert!(
        said.contains("no agent's data is there") && said.contains("--data-dir"),
        "{said}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_socket_takes_rubbish_and_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), "").await;
    let socket = dir.path().join("control.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for request in [
        "",
        "\n",
        "{}\n",
        "{\"put_back\":[{\"life\":\"..\",\"first\":0,\"end\":9}]}\n",
        "\u{0}\n",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains("refused") || answer.contains("\"put_back\":0"),
            "{answer}"
        );
    }
    running.end().await;
    assert!(!socket.exists());
}
