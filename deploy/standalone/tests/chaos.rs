//! `demo --chaos`: everything arrives once; Ctrl-C drains; nothing outlives a killed parent.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use tempfile::TempDir;

/// A running demo, what it says, and its folder.
struct Demo {
    child: Child,
    said: BufReader<ChildStderr>,
    heard: String,
    data_dir: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["demo", "--chaos", "--json", "--sensors", "50", "--rate", "10"])
            .args(arguments)
            .arg("--data-dir")
            .arg(data_dir.path())
            // As a shell does: Ctrl-C is for the whole group.
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            said,
            heard: String::new(),
            data_dir,
        }
    }

    /// Reads on until a line has `part` in it.
    fn hear(&mut self, part: &str) {
        loop {
            let from = self.heard.len();
            let read = self.said.read_line(&mut self.heard).unwrap();
            assert!(read > 0, "no `{part}` in\n{}", self.heard);
            if self.heard[from..].contains(part) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" -- \"$1\"", name, &group])
            .status();
        assert!(sent.unwrap().success());
    }

    /// The object on its last line, after it ended well.
    fn summary(&mut self) -> serde_json::Value {
        self.said.read_to_string(&mut self.heard).unwrap();
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.heard);
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }
}

fn assert_everything_arrived(summary: &serde_json::Value) {
    assert!(summary["published"].as_u64().unwrap() > 0);
    assert_eq!(summary["delivered"], summary["published"]);
    assert_eq!(
        (&summary["lost"], &summary["duplicates"]),
        (&0.into(), &0.into())
    );
}

fn count(summary: &serde_json::Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap()
}

#[test]
fn through_kills_and_cuts_everything_arrives_once() {
    for qos in ["1", "2"] {
        let mut demo = Demo::start(&["--for", "10s", "--seed", "3", "--qos", qos]);
        let summary = demo.summary();
        assert_everything_arrived(&summary);
        for (key, said) in [
            ("kills_agent", "agent       SIGKILL"),
            ("kills_aggregator", "aggregator  SIGKILL"),
            ("link_cuts", "link        cut"),
        ] {
            let lines = demo.heard.lines().filter(|line| line.contains(said));
            assert_eq!(lines.count() as u64, count(&summary, key), "{}", demo.heard);
            assert!(count(&summary, key) > 0, "{summary}");
        }
    }
}

#[test]
fn ctrl_c_ends_the_killing_and_drains() {
    let mut demo = Demo::start(&[]);
    demo.hear("SIGKILL (1)");
    demo.signal("INT");
    let summary = demo.summary();
    assert_everything_arrived(&summary);
    assert!(count(&summary, "kills_agent") + count(&summary, "kills_aggregator") > 0);
}

/// Whether no process holds this folder: the lock is given back however a process ends.
fn wait_until_free(dir: &Path) {
    let lock = File::open(dir.join("lock")).unwrap();
    lock.lock().unwrap();
}

#[test]
fn when_the_demo_itself_is_killed_its_children_end() {
    let mut demo = Demo::start(&[]);
    demo.hear("published");
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    // Waits for ever if one of them lives on.
    wait_until_free(demo.data_dir.path());
    wait_until_free(&demo.data_dir.path().join("agent"));
}
