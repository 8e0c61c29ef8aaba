//! The command as people run it: exit codes, the last line, the end by a signal.

use crate::server::{Act, Server};
use std::process::{Command, Stdio};
use tributary_sim::client::Protocol;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary-sim"));
    command.args(args).stdin(Stdio::null());
    command
}

fn ended(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn what_is_wrong_with_a_command_is_said_with_exit_code_2() {
    for (args, words) in [
        (&["run"][..], "--mqtt"),
        (&["run", "--mqtt", "localhost", "--for", "1s"], "HOST:PORT"),
        (&["run", "--mqtt", "h:1", "--for", "20"], "20s"),
        (&["run", "--mqtt", "h:1", "--sensors", "0"], "0 sensors"),
        (&["run", "--mqtt", "h:1", "--rate", "2000"], "at most 1000"),
        (&["run", "--mqtt", "h:1", "--protocol", "4.2"], "choose 3"),
        (&["run", "--mqtt", "h:1", "--connections", "0"], "choose 1"),
        (
            &["run", "--mqtt", "h:1", "--faults", "NaN"],
            "faults a minute",
        ),
        (&["faults", "--truth", "/nowhere.bin"], "/nowhere.bin"),
        (
            &["replay", "--mqtt", "h:1", "--input", "/nowhere.csv"],
            "/nowhere.csv",
        ),
        (
            &["verify", "--lake", "/nowhere", "--truth", "/nowhere.bin"],
            "/nowhere.bin",
        ),
    ] {
        let (code, text) = ended(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    let (code, text) = ended(&["run", "--help"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("plant-1/pump-0007/temperature"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_a_run_after_the_last_acknowledgement() {
    let mut server = Server::start(Protocol::V5, 64, |_, _| Act::Ack).await;
    let address = server.address.to_string();
    let args = [
        "run",
        "--mqtt",
        &address,
        "--sensors",
        "20",
        "--rate",
        "50",
        "--protocol",
        "5",
        "--json",
    ];
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.received(100).await;
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let waiting = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let output = waiting.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["published"], summary["acknowledged"]);
    assert_eq!(summary["unacknowledged"], 0);
    assert_eq!(
        server.seen.lock().unwrap().received.len() as u64,
        summary["published"]
    );
}
