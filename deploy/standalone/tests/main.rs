//! The program as a person starts it: a short demo, from its arguments to its last line; what
//! becomes of one that is killed or interrupted.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod chaos;
mod measured;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

#[test]
fn a_short_demo_delivers_everything_once_and_says_so() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args([
            "demo",
            "--for",
            "2s",
            "--sensors",
            "50",
            "--rate",
            "10",
            "--faults",
            "600",
            "--faults-after",
            "500ms",
            "--json",
        ])
        .arg("--data-dir")
        .arg(data_dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}");
    let out = String::from_utf8(demo.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let published = summary["published"].as_u64().unwrap();
    assert!(published > 500, "{summary}");
    assert_eq!(summary["delivered"], published);
    assert_eq!(
        (&summary["lost"], &summary["duplicates"]),
        (&0.into(), &0.into())
    );
    for key in ["p50", "p99", "p999", "max"] {
        assert!(summary["alert_latency_ms"][key].is_number(), "{summary}");
    }
    let faults = |key: &str| summary[key].as_u64().unwrap();
    assert!(summary["alerts_held_back"].is_u64(), "{summary}");
    assert!(faults("faults_injected") > 0, "{summary}");
    assert!(faults("faults_detected") <= faults("faults_injected"));
    for key in ["kills_agent", "kills_aggregator", "link_cuts"] {
        assert_eq!(summary[key], 0, "{summary}");
    }
    assert!(summary["bytes_per_reading"].as_f64().unwrap() > 0.0);
}

/// Ends the process with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine that runs: its console, and what it says from now on.
struct Machine {
    process: Ended,
    console: String,
    says: Option<BufReader<ChildStderr>>,
}

impl Machine {
    /// Nobody listens at its broker's port 1: how often that is tried is counted, and logged.
    fn start(data_dir: &Path) -> Self {
        let config = data_dir.join("tributary.toml");
        let broker = "[[source.mqtt]]\nname = \"shop\"\naddress = \"127.0.0.1:1\"\n";
        std::fs::write(&config, broker).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["run", "--mqtt", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(data_dir)
            .stderr(Stdio::piped())
            .spawn();
        let mut process = Ended(process.unwrap());
        let mut says = BufReader::new(process.0.stderr.take().unwrap());
        let console = says
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let address = line.strip_prefix("status   http://")?.split('/').next()?;
                Some(address.to_owned())
            });
        Self {
            process,
            console: console.unwrap(),
            says: Some(says),
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.console).unwrap();
        let ask = b"GET /metrics HTTP/1.1\r\nhost: machine\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }
}

#[test]
fn the_console_of_a_machine_measures_its_agent_too() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let machine = Machine::start(data_dir.path());
    let page = machine.metrics();
    for line in [
        "tributary_agent_broker_connected{source=\"shop\"} 0",
        "tributary_agent_broker_messages_total{source=\"shop\"} 0",
        "tributary_agent_mqtt_messages_total 0",
    ] {
        assert!(page.lines().any(|known| known == line), "{line}: {page}");
    }
}

#[test]
fn a_machine_judges_by_what_its_file_says_at_each_hang_up() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut machine = Machine::start(data_dir.path());
    let mut says = machine.says.take().unwrap().lines().map_while(Result::ok);
    let rule = "[[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\n";
    let pointless = "[[forward]]\nwhat = \"aggregates\"\n";
    for (text, words) in [
        (format!("{rule}above = 80\n"), "rules=1"),
        (rule.to_owned(), "readings are judged as before"),
        (String::new(), "rules=0"),
        (
            pointless.to_owned(),
            "tributary.toml: line 1: `forward[0]` has no effect",
        ),
        (pointless.to_owned(), "[[forward]] changed: needs a restart"),
    ] {
        std::fs::write(data_dir.path().join("tributary.toml"), &text).unwrap();
        let mut hang_up = Command::new("kill");
        hang_up.args(["-HUP", &machine.process.0.id().to_string()]);
        assert!(hang_up.status().unwrap().success());
        assert!(says.any(|line| line.contains(words)), "{words}");
    }
}

fn tributary(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    let done = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn settings_are_checked_without_a_machine() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = dir.path().join("t.toml");
    let path = config.to_str().unwrap();
    let arguments = ["check", "--config", path];
    for (text, code, out, err) in [
        (
            "[machine]\nmqtt = \"127.0.0.1:0\"\n",
            0,
            "the configuration is good",
            "",
        ),
        (
            "[capture]\npre_s = 3\n",
            0,
            "the configuration is good",
            "t.toml: line 1: `capture` has no effect",
        ),
        (
            "[machine]\nmqt = \"x\"\n[detect]\npreset = 3\n",
            2,
            "",
            "did you mean `machine.mqtt`?",
        ),
        (
            "[[source.mqtt]]\naddress = \"a:1\"\n[source.mqtt.tls]\nca = \"/no/such.pem\"\n",
            2,
            "",
            "/no/such.pem",
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        let (status, stdout, stderr) = tributary(&arguments);
        assert_eq!(status, Some(code), "{text}: {stderr}");
        assert!(
            stdout.contains(out) && stderr.contains(err),
            "{text}: {stdout}{stderr}"
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was made"
    );
}

#[test]
fn the_status_of_a_machine_is_that_of_both() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let machine = Machine::start(data_dir.path());
    let dir = data_dir.path().to_str().unwrap();
    let both = ["status", "--data-dir", dir, "--console", &machine.console];
    let (code, out, err) = tributary(&both);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with("agent: 0 series, 0 still learning"),
        "{out}"
    );
    assert!(
        out.contains("aggregator: 0 readings in 0 batches accepted\nlake: 0 rows"),
        "{out}"
    );
    let (_, out, _) = tributary(&[&both[..], &["--json"]].concat());
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(all["agent"]["series"], 0, "{out}");
    assert_eq!(all["aggregator"]["lake"]["rows"], 0, "{out}");
    // Of one that is not there the other is said.
    let (code, out, err) = tributary(&["status", "--data-dir", dir, "--console", "127.0.0.1:1"]);
    assert!(code == Some(1) && out.starts_with("agent: "), "{out}");
    assert!(
        err.contains("aggregator: nothing answers at http://127.0.0.1:1"),
        "{err}"
    );
}

#[test]
fn a_machine_whose_log_nobody_reads_any_more_goes_on() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut machine = Machine::start(data_dir.path());
    machine.says = None;
    // Each try is logged.
    let tries = |page: String| {
        let name = "tributary_agent_broker_reconnects_total{";
        let of_name = |line: &&str| line.starts_with(name);
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        page.lines().filter(of_name).map(count).sum::<f64>()
    };
    let before = tries(machine.metrics());
    while tries(machine.metrics()) < before + 2.0 {}
    let mut terminate = Command::new("kill");
    terminate.arg(machine.process.0.id().to_string());
    assert!(terminate.status().unwrap().success());
    assert!(machine.process.0.wait().unwrap().success());
}
