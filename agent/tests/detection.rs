//! Detection in a real agent: a process that is told by SIGHUP to judge by other rules while
//! readings come as fast as it takes them, and what a subscriber is told.

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends the process with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Program {
    process: Ended,
    config: PathBuf,
    dir: PathBuf,
    mqtt: SocketAddr,
    http: SocketAddr,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

fn field<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Program {
    fn start(dir: &Path, detect: &str) -> Self {
        let config = dir.join("agent.toml");
        let data_dir = dir.join("data");
        write_config(&config, &data_dir, detect);
        let process = Command::new(env!("CARGO_BIN_EXE_tributary-agent"))
            .args(["run", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn();
        let mut process = Ended(process.unwrap());
        let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let (mqtt, http) = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some((field(&line, "mqtt")?, field(&line, "http")?)))
            .unwrap();
        Self {
            process,
            config,
            dir: data_dir,
            mqtt,
            http,
            log,
        }
    }

    /// Changes `[detect]`, sends SIGHUP, and waits until the log says something with this word.
    fn judge_by(&mut self, detect: &str, word: &str) {
        write_config(&self.config, &self.dir, detect);
        self.hang_up();
        let mut said = self.log.by_ref().map_while(Result::ok);
        assert!(said.any(|line| line.contains(word)), "{word}");
    }

    fn hang_up(&self) {
        let mut hang_up = Command::new("kill");
        hang_up.args(["-HUP", &self.process.0.id().to_string()]);
        assert!(hang_up.status().unwrap().success());
    }

    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |count| count.trim().parse().unwrap())
    }
}

/// Whose clock is right is not asked of this machine's kernel.
fn write_config(path: &Path, data_dir: &Path, detect: &str) {
    let detect = detect.strip_prefix("[detect]\n").unwrap_or(detect);
    let text = format!(
        "[agent]\ndata_dir = \"{}\"\nreserve_bytes = 0\n[source.listener]\n\
         address = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\n\
         [detect]\nclock = \"plausible\"\n{detect}",
        data_dir.display()
    );
    std::fs::write(path, text).unwrap();
}

fn rule(max: u32) -> String {
    format!(
        "[detect]\nweekly = false\n[[detect.rule]]\nname = \"wild\"\nkind = \"range\"\n\
         metric = \"level\"\nmin = 0\nmax = {max}\n"
    )
}

fn client(at: SocketAddr, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, at.ip().to_string(), at.port());
    options.set_inflight(60);
    AsyncClient::new(options, 64)
}

async fn acknowledged(events: &mut EventLoop) {
    while !matches!(
        events.poll().await.unwrap(),
        Event::Incoming(Packet::PubAck(_))
    ) {}
}

async fn alert(events: &mut EventLoop) -> serde_json::Value {
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
            assert_eq!(publish.topic, "tributary/alerts/tank/level");
            return serde_json::from_slice(&publish.payload).unwrap();
        }
    }
}

#[test]
fn a_hang_up_names_what_needs_a_restart_and_what_is_hardly_meant_and_applies_the_rest() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut agent = Program::start(dir.path(), "");
    let other = format!(
        "{}[wal]\nquota_bytes = \"300 MiB\"\n[capture]\npre_s = 5\n",
        rule(7).trim_start_matches("[detect]\n")
    );
    write_config(&agent.config, &agent.dir, &other);
    agent.hang_up();
    let mut said = Vec::new();
    for line in agent.log.by_ref().map_while(Result::ok) {
        let is_last = line.contains("judged by other settings");
        said.push(line);
        if is_last {
            break;
        }
    }
    let of = |words: &str| said.iter().filter(|line| line.contains(words)).count();
    assert_eq!(of("needs a restart"), 2, "{said:?}");
    assert_eq!(
        of("[wal] quota_bytes changed: needs a restart"),
        1,
        "{said:?}"
    );
    assert_eq!(
        of("[capture] pre_s changed: needs a restart"),
        1,
        "{said:?}"
    );
    assert_eq!(
        of("agent.toml: line 19: `capture` has no effect"),
        1,
        "{said:?}"
    );
    assert_eq!(of("rules=1"), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_while_readings_come_and_none_is_judged_twice_or_not_at_all() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut program = Program::start(dir.path(), &rule(100));
    let (reader, mut told) = client(program.mqtt, "reader");
    let filter = "tributary/alerts/tank/level";
    reader.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    let (publisher, mut events) = client(program.mqtt, "tank");
    let publish = async |value: u32| {
        let topic = "tank/level";
        let payload = value.to_string();
        let sent = publisher.publish(topic, QoS::AtLeastOnce, false, payload);
        sent.await.unwrap();
    };
    publish(150).await;
    acknowledged(&mut events).await;
    let raised = alert(&mut told).await;
    assert_eq!(
        (&raised["detector"], &raised["state"]),
        (&"rule:wild".into(), &"raised".into())
    );

    const COUNT: u32 = 20_000;
    let acknowledging = tokio::spawn(async move {
        for _ in 0..COUNT {
            acknowledged(&mut events).await;
        }
        events
    });
    let reloading = tokio::task::spawn_blocking(move || {
        for max in 0..12 {
            program.judge_by(&rule(200 + max), "judged by other settings");
        }
        // A rule that is wrong leaves what holds.
        program.judge_by(&rule(300).replace("range", "rnage"), "judged as before");
        program.judge_by(&rule(211), "nothing in [detect] changed");
        program
    });
    for i in 0..COUNT {
        publish(i % 7).await;
    }
    let mut events = acknowledging.await.unwrap();
    let program = reloading.await.unwrap();
    // The first change ended what the rule had raised as it was before.
    let cleared = alert(&mut told).await;
    assert_eq!(
        (&cleared["id"], &cleared["state"]),
        (&raised["id"], &"cleared".into())
    );
    publish(212).await;
    acknowledged(&mut events).await;
    let raised = alert(&mut told).await;
    assert_eq!(raised["detector"], "rule:wild", "211 is the last that held");
    let judged = "tributary_agent_judged_readings_total";
    while program.metric(judged) < f64::from(COUNT + 2) {}
    assert_eq!(program.metric(judged), f64::from(COUNT + 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_listed_and_acknowledged_by_command() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = Program::start(dir.path(), &rule(100));
    let (reader, mut told) = client(program.mqtt, "reader");
    let filter = "tributary/alerts/#";
    reader.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    let (publisher, mut events) = client(program.mqtt, "tank");
    let sent = publisher.publish("tank/level", QoS::AtLeastOnce, false, "150");
    sent.await.unwrap();
    acknowledged(&mut events).await;
    let raised = alert(&mut told).await;
    let id = raised["id"].as_str().unwrap().to_owned();
    let config = program.config.clone();
    let command = move |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary-agent"));
        command.arg("--config").arg(&config).args(arguments);
        command.output().unwrap()
    };
    let asked = id.clone();
    tokio::task::spawn_blocking(move || {
        let listed = command(&["alert", "ls"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(
            listed.contains(&asked) && listed.contains("raised"),
            "{listed}"
        );
        let said = |arguments: &[&str]| {
            let output = command(arguments);
            let said = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), said)
        };
        let nobody = "f".repeat(32);
        let (code, text) = said(&["alert", "ack", &nobody]);
        assert!(text.contains("no such alert stands"), "{text}");
        assert_eq!(code, Some(1));
        let short = asked.get(..6).unwrap();
        let acknowledged = (Some(0), format!("{asked}: acknowledged\n"));
        assert_eq!(said(&["alert", "ack", short]), acknowledged);
        let again = (Some(0), format!("{asked}: was acknowledged already\n"));
        assert_eq!(said(&["alert", "ack", &asked]), again);
        let listed = command(&["alert", "ls", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(
            (&listed["id"], &listed["state"]),
            (&asked.into(), &"acknowledged".into())
        );
        assert_eq!(command(&["alert", "ack", "12"]).status.code(), Some(2));
    })
    .await
    .unwrap();
    let seen = alert(&mut told).await;
    assert_eq!(
        (&seen["id"], &seen["state"]),
        (&id.into(), &"acknowledged".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_that_stands_is_listed_the_gravest_first() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let rule = |name: &str, max: i32, severity: &str| {
        format!(
            "[[detect.rule]]\nname = \"{name}\"\nkind = \"range\"\nmetric = \"level\"\n\
             max = {max}\nseverity = \"{severity}\"\n"
        )
    };
    let rules = rule("far", 200, "warning") + &rule("near", 100, "critical");
    let program = Program::start(dir.path(), &rules);
    let (publisher, mut events) = client(program.mqtt, "tank");
    let config = program.config.clone();
    let listed = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary-agent"));
        let command = command.arg("--config").arg(&config).args(["alert", "ls"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    // Asked while it replays, it says nothing here.
    let none = loop {
        let listed = listed();
        if !listed.is_empty() {
            break listed;
        }
    };
    assert_eq!(none, "no alert stands\n");
    let subscribed = async |id: &str| {
        let (reader, mut told) = client(program.mqtt, id);
        let filter = "tributary/alerts/#";
        reader.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        while !matches!(
            told.poll().await.unwrap(),
            Event::Incoming(Packet::SubAck(_))
        ) {}
        (reader, told)
    };
    let (_reader, mut told) = subscribed("reader").await;
    // The critical one first, then the warning.
    for value in ["150", "250"] {
        let sent = publisher.publish("tank/level", QoS::AtLeastOnce, false, value);
        sent.await.unwrap();
        acknowledged(&mut events).await;
    }
    let listed = loop {
        let listed = listed();
        if listed.lines().count() == 2 {
            break listed;
        }
    };
    for (line, words) in listed.lines().zip([
        ["raised", "critical  tank level  rule:near"],
        ["raised", "warning   tank level  rule:far"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{listed}");
    }
    while program.metric("tributary_agent_standing_alerts ") != 2.0 {}
    let of_rules = "tributary_agent_alerts_total{detector=\"rule\"} ";
    assert_eq!(program.metric(of_rules), 2.0);
    // Who listens is told of both, and last of the gravest; whoever comes then, of that alone.
    for name in ["near", "far", "near"] {
        assert_eq!(alert(&mut told).await["detector"], format!("rule:{name}"));
    }
    let (_later, mut told) = subscribed("later").await;
    assert_eq!(alert(&mut told).await["detector"], "rule:near");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_without_detection_forwards_readings_that_windows_would_stand_for() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Detection broke twice just now.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let noted = format!("{now}\n{now}\n");
    std::fs::write(dir.path().join("data/judge.panics"), noted).unwrap();
    let program = Program::start(
        dir.path(),
        "[[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
         [[forward]]\nwhat = \"aggregates\"\n",
    );
    assert_eq!(program.metric("tributary_agent_detection_off "), 1.0);
    let (publisher, mut events) = client(program.mqtt, "tank");
    let sent = publisher.publish("tank/level", QoS::AtLeastOnce, false, "5");
    sent.await.unwrap();
    acknowledged(&mut events).await;
    let sealed = || program.metric("tributary_agent_readings_total ");
    let held = || program.metric("tributary_agent_not_forwarded_readings_total ");
    while sealed() + held() < 1.0 {}
    assert_eq!((sealed(), held()), (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_it_is_known_which_alerts_are_over() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = Program::start(dir.path(), &rule(100));
    let (publisher, mut events) = client(program.mqtt, "plant");
    for (topic, value) in [("a/level", 150), ("b/level", 150), ("a/level", 50)] {
        let sent = publisher.publish(topic, QoS::AtLeastOnce, false, value.to_string());
        sent.await.unwrap();
        acknowledged(&mut events).await;
    }
    drop(program);
    let program = Program::start(dir.path(), &rule(100));
    let (reader, mut told) = client(program.mqtt, "reader");
    let filter = "tributary/alerts/#";
    reader.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Event::Incoming(Packet::Publish(publish)) = told.poll().await.unwrap() {
            let alert: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
            heard.push((publish.topic, alert["state"].as_str().unwrap().to_owned()));
        }
    }
    heard.sort();
    let expected = [("a", "cleared"), ("b", "raised")];
    let expected = expected
        .map(|(device, state)| (format!("tributary/alerts/{device}/level"), state.to_owned()));
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_learned_is_said_by_command_and_on_the_status_page() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let typo = "[[detect.rule]]\nname = \"typo\"\nkind = \"range\"\nmetric = \"levle\"\nmax = 9\n";
    let program = Program::start(dir.path(), typo);
    let (publisher, mut events) = client(program.mqtt, "tank");
    // 37 readings of a slow series, and so many of a fast one that its pace is known.
    for i in 0..37_u32 {
        for (metric, every) in [("level", 1_000), ("flow", 100)] {
            let ts = 1_700_000_000_000_u64 + u64::from(i * every);
            let payload = format!("{{\"value\":{i},\"ts\":{ts}}}");
            let topic = format!("{metric}/value");
            let sent = publisher.publish(topic, QoS::AtLeastOnce, false, payload);
            sent.await.unwrap();
            acknowledged(&mut events).await;
        }
    }
    while program.metric("tributary_agent_judged_readings_total") < 74.0 {}
    let config = program.config.clone();
    let said = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary-agent"));
        let command = command.arg("--config").arg(&config).arg("status");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    });
    let said = said.await.unwrap();
    let mut lines = said.lines();
    assert_eq!(
        lines.next(),
        Some("3 series, 3 still learning; 1 judged on 1 s windows")
    );
    let typo = "rule \"typo\"  warning: no series fits yet: are its patterns what was meant?";
    assert_eq!(lines.next(), Some(typo));
    let slow = "level value  learning (37 of 100), reading by reading";
    assert!(lines.any(|line| line == slow), "{said}");
    // Two seconds of it are closed, and the third one is after two of silence.
    let fast = said
        .lines()
        .find(|line| line.starts_with("flow value  learning ("));
    assert!(
        fast.unwrap()
            .contains(" of 100), on 1 s windows: alerts take up to 1.6 s"),
        "{said}"
    );
    let page = program.page("/api/v1/status");
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let detection = &body["detection"];
    assert_eq!(
        (&detection["series"], &detection["fast"]),
        (&3.into(), &1.into())
    );
    assert_eq!(detection["configured"][0]["count"], 0);
    let listed = detection["listed"].as_array().unwrap();
    let level = listed.iter().find(|it| it["device"] == "level").unwrap();
    assert_eq!(level["state"], "learning (37 of 100)");
}
