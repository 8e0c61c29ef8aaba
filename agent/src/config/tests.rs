//! What a configuration means, and what is said when it means nothing.

use super::*;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::parse(text, environment)
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
}

const WHOLE: &str = r#"
[agent]
data_dir = "/data"
name = "gateway 7"
reserve_bytes = "8 MiB"

[source.listener]
address = "[::1]:1884"
rate_limit_messages_per_s = 50

[wal]
profile = "sd-card"
max_write_gb_per_day = 12
quota_bytes = "64 MiB"

[spool]
quota_bytes = 1073741824
seal_delay_ms = 250

[spool.lanes.telemetry]
policy = "drop-newest"
max_age_hours = 72

[spool.lanes.events]
policy = "drop-oldest"
quota_bytes = "16 MiB"

[uplink]
endpoints = ["aggregator:7443", "[2001:db8::1]:7443"]
ca = "ca.pem"
certificate = "agent.pem"
key = "agent.key"
server_name = "aggregator"

[http]
address = "127.0.0.1:0"
"#;

#[test]
fn every_setting_is_read() {
    let config = parse(WHOLE, &[]).unwrap();
    assert_eq!(config.agent.data_dir, Path::new("/data"));
    assert_eq!(config.agent.name, "gateway 7");
    assert_eq!(config.listener.address, Some("[::1]:1884".parse().unwrap()));
    assert_eq!(config.listener.rate_limit_messages_per_s, 50);
    assert_eq!(config.wal.max_delay, Duration::from_millis(100));
    assert_eq!(config.wal.quota_bytes, 64 << 20);
    let budget = config.wal.commit_policy().wear;
    assert_eq!(
        budget.map(|budget| budget.bytes_per_day),
        Some(12_000_000_000)
    );
    assert_eq!(config.agent.reserve_bytes, 8 << 20);
    let telemetry = LanePolicy {
        policy: Policy::DropNewest,
        quota_bytes: 1 << 30,
        max_age: Some(Duration::from_secs(72 * 3_600)),
    };
    assert_eq!(config.spool.telemetry, telemetry);
    let events = LanePolicy {
        policy: Policy::DropOldest,
        quota_bytes: 16 << 20,
        max_age: None,
    };
    assert_eq!(config.spool.events, events);
    assert_eq!(config.spool.seal_delay, Duration::from_millis(250));
    let endpoints: Vec<_> = config
        .uplink
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(endpoints, ["aggregator:7443", "[2001:db8::1]:7443"]);
    assert_eq!(config.uplink.server_names, ["aggregator"]);
    assert_eq!(config.http.address.port(), 0);
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.agent.data_dir, Path::new("/var/lib/tributary-agent"));
    assert_eq!(
        config.listener.address,
        Some("127.0.0.1:1883".parse().unwrap())
    );
    assert_eq!(config.http.address, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(config.wal.max_delay, Duration::from_millis(20));
    assert_eq!(config.wal.quota_bytes, 256 << 20);
    assert_eq!(config.uplink, UplinkSettings::default());
    let spool = SpoolConfig {
        telemetry: config.spool.telemetry,
        events: config.spool.events,
        alerts: config.spool.alerts,
        aggregates: config.spool.aggregates,
        reserve_bytes: config.agent.reserve_bytes,
    };
    assert_eq!(spool, SpoolConfig::default());
}

#[test]
fn the_environment_replaces_the_file_and_is_named_when_wrong() {
    let config = parse(
        WHOLE,
        &[
            ("TRIBUTARY_AGENT__UPLINK__ENDPOINTS", r#"["other:1"]"#),
            ("TRIBUTARY_AGENT__AGENT__NAME", "plain text"),
            ("TRIBUTARY_AGENT__WAL__MAX_DELAY_MS", "5"),
            ("TRIBUTARY_OTHER__X", "not ours"),
        ],
    )
    .unwrap();
    assert_eq!(config.uplink.endpoints[0].to_string(), "other:1");
    assert_eq!(config.agent.name, "plain text");
    assert_eq!(config.wal.max_delay, Duration::from_millis(5));
    let wrong = parse("", &[("TRIBUTARY_AGENT__WAL__MAX_DELAY", "5")]).unwrap_err();
    assert_eq!(
        wrong,
        [
            "TRIBUTARY_AGENT__WAL__MAX_DELAY: `wal.max_delay` is not known; did you mean \
          `wal.max_delay_ms`?"
        ]
    );
}

#[test]
fn everything_wrong_is_said_at_once_with_line_reason_and_nearest_name() {
    let text = "\
[agent]
nmae = \"x\"
data_dir = 7

[source.listener]
adress = \"127.0.0.1:1883\"
rate_limit_messages_per_s = 0

[wal]
profile = \"fast\"
max_delay_ms = \"soon\"
quota_bytes = \"1 MiB\"

[uplnk]
endpoints = []

[uplink]
endpoints = [\"aggregator\"]

[http]
address = \"localhost\"
colour = 1
";
    let wrong = parse(text, &[]).unwrap_err();
    assert_eq!(
        wrong,
        [
            "line 2: `agent.nmae` is not known; did you mean `agent.name`?",
            "line 3: `agent.data_dir` is the number 7; expected a path, as a text",
            "line 6: `source.listener.adress` is not known; did you mean \
             `source.listener.address`?",
            "line 7: `source.listener.rate_limit_messages_per_s` is 0; expected 1 to 4294967295",
            "line 10: `wal.profile` is \"fast\"; expected `default`, `low-latency` or `sd-card`",
            "line 11: `wal.max_delay_ms` is the text \"soon\"; expected an integer of at least 0",
            "line 12: `wal.quota_bytes` is 1048576 bytes; expected at least 16 MiB",
            "line 14: `uplnk` is not known; did you mean `uplink`?",
            "line 18: `uplink.endpoints` holds \"aggregator\"; expected host and port, like \
             `aggregator:7443`",
            "line 21: `http.address` is \"localhost\"; expected an IP address and port, like \
             `127.0.0.1:9464`",
            "line 22: `http.colour` is not known; known are address",
        ]
    );
}

#[test]
fn what_is_no_toml_says_where() {
    let wrong = parse("[agent]\nname = \"x\n[wal]\n", &[]).unwrap_err();
    assert!(wrong[0].starts_with("line 2: not TOML: "), "{wrong:?}");
    let wrong = parse("agent = 3\n", &[]).unwrap_err();
    assert_eq!(
        wrong,
        ["line 1: `agent` is an integer; expected a section: [agent]"]
    );
}

#[test]
fn several_aggregators_are_each_another_one_and_have_their_names() {
    const FILES: &str = "ca = \"c\"\ncertificate = \"c\"\nkey = \"k\"\n";
    let uplink = |text: &str| parse(&format!("[uplink]\n{FILES}{text}"), &[]);
    let config = |text: &str| uplink(text).unwrap().uplink;
    let wrong = |text: &str| uplink(text).unwrap_err().join("\n");
    let targets = |text: &str| {
        let config = config(text).config("gate", Duration::from_secs(1)).unwrap();
        let all = [config.target].into_iter().chain(config.others.targets);
        let words = |target: tributary_uplink::Target| {
            let name = target.server_name.unwrap_or_default();
            format!("{} {name}", target.address)
        };
        all.map(words).collect::<Vec<_>>()
    };
    assert_eq!(targets("endpoints = \"a:1\""), ["a:1 "]);
    let two = "endpoints = [\"a:1\", \"b:1\"]\n";
    assert_eq!(targets(two), ["a:1 ", "b:1 "]);
    let named = |names: &str| format!("{two}server_name = {names}");
    assert_eq!(targets(&named("\"x\"")), ["a:1 x", "b:1 x"]);
    assert_eq!(targets(&named("[\"x\", \"y\"]")), ["a:1 x", "b:1 y"]);
    let said = wrong(&named("[\"x\", \"y\", \"z\"]"));
    assert!(
        said.contains("`uplink.server_name` holds 3 names for 2 endpoints"),
        "{said}"
    );
    let said = wrong("endpoints = [\"a:1\", \"A:1\"]");
    assert!(
        said.contains("`uplink.endpoints` names A:1 twice"),
        "{said}"
    );
    let said = wrong("endpoints = [\"a:1\", \"b:1\", \"c:1\", \"d:1\", \"e:1\"]");
    assert!(said.contains("holds 5 endpoints; at most 4"), "{said}");
    let said = wrong("endpoints = [\"a:1\", \"tcp://b:1\"]");
    assert!(said.contains("without `tcp://`"), "{said}");
    let times = config(&format!("{two}failover_after_s = 2\nfailover_hold_s = 3"));
    assert_eq!(times.times.failover_after_us, 2_000_000);
    assert_eq!(times.failover_hold_us, 3_000_000);
    assert_eq!(times.times.return_after_us, 600_000_000);
    let said = wrong(&format!("{two}return_after_s = 0"));
    assert!(
        said.contains("`uplink.return_after_s` is 0; expected 1 to 604800"),
        "{said}"
    );
}

#[test]
fn endpoints_need_their_files_and_others_cannot_be_let_in_unasked() {
    let wrong = parse("[uplink]\nendpoints = [\"a:1\"]\nca = \"x\"", &[]).unwrap_err();
    assert_eq!(wrong.len(), 2);
    assert!(
        wrong[0].starts_with("`uplink.certificate` is missing"),
        "{wrong:?}"
    );
    let open = "[source.listener]\naddress = \"0.0.0.0:1883\"\n";
    let wrong = parse(open, &[]).unwrap_err();
    assert!(wrong[0].starts_with("line 2: `source.listener.address` is 0.0.0.0:1883"));
    assert!(wrong[0].contains("insecure_allow_remote"));
    parse(&format!("{open}insecure_allow_remote = true"), &[]).unwrap();
}

const TLS: &str = "[source.listener.tls]\ncertificate = \"c\"\nkey = \"k\"\n";

#[test]
fn others_come_in_by_tls_and_say_who_they_are() {
    let listener = |text: &str| parse(text, &[]).map(|config| config.listener);
    let wrong = listener(TLS).unwrap_err();
    assert!(
        wrong[0].starts_with("line 1: `source.listener.tls` is 0.0.0.0:8883"),
        "{wrong:?}"
    );
    let users = "[source.listener]\nusers = \"u\"\n";
    let config = listener(&format!("{users}{TLS}")).unwrap();
    assert_eq!(config.users.as_deref(), Some(Path::new("u")));
    let tls = config.tls.unwrap();
    assert_eq!(tls.address, "0.0.0.0:8883".parse().unwrap());
    assert_eq!(tls.clients, None);
    // Certificates alone do, where everybody must have one.
    let config = listener(&format!("{TLS}client_ca = \"a\"\nclient_crl = \"l\"")).unwrap();
    let clients = config.tls.unwrap().clients.unwrap();
    assert!(clients.required);
    assert_eq!(clients.revoked.as_deref(), Some(Path::new("l")));
    assert_eq!(clients.publish, ["#"]);
    assert!(!clients.read);
    let optional = format!("{TLS}client_ca = \"a\"\nclient_certificate = \"optional\"\n");
    listener(&optional).unwrap_err();
    listener(&format!("{users}{optional}")).unwrap();
    listener(&format!(
        "[source.listener]\ninsecure_allow_remote = true\n{TLS}"
    ))
    .unwrap();
    let here = TLS.replace("certificate", "address = \"127.0.0.1:8883\"\ncertificate");
    listener(&here).unwrap();
    // Passwords in the clear must be asked for.
    let plain = "[source.listener]\naddress = \"0.0.0.0:1883\"\nusers = \"u\"\n";
    let wrong = listener(plain).unwrap_err();
    assert!(
        wrong[0].contains("passwords would cross the network unencrypted"),
        "{wrong:?}"
    );
    listener(&format!("{plain}insecure_allow_remote = true")).unwrap();
}

#[test]
fn a_listener_has_a_door_and_what_belongs_to_it() {
    let listener = |text: &str| parse(text, &[]).map(|config| config.listener);
    let none = "[source.listener]\naddress = \"none\"\n";
    let wrong = listener(none).unwrap_err();
    assert!(wrong[0].contains("nobody could publish"), "{wrong:?}");
    assert_eq!(
        listener(&format!("{none}users = \"u\"\n{TLS}"))
            .unwrap()
            .address,
        None
    );
    let wrong = listener("[source.listener.tls]\n").unwrap_err();
    assert!(
        wrong
            .iter()
            .any(|w| w.contains("`source.listener.tls.key` is missing")),
        "{wrong:?}"
    );
    let users = "[source.listener]\nusers = \"u\"\n";
    let lonely =
        "client_crl = \"l\"\nclient_certificate = \"required\"\npublish = [\"#\"]\nread = true";
    let wrong = listener(&format!("{users}{TLS}{lonely}")).unwrap_err();
    assert_eq!(wrong.len(), 4);
    assert!(
        wrong.iter().all(|w| w.contains("needs `client_ca`")),
        "{wrong:?}"
    );
    let odd = "client_ca = \"a\"\nclient_certificate = \"maybe\"\npublish = [\"a#\"]";
    let wrong = listener(&format!("{users}{TLS}{odd}")).unwrap_err();
    assert!(
        wrong[0].contains("expected `required` or `optional`"),
        "{wrong:?}"
    );
    assert!(
        wrong[1].contains("holds \"a#\", which holds `#` beside"),
        "{wrong:?}"
    );
}

#[test]
fn a_file_is_read_once_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    let error = Config::load(Some(&path)).unwrap_err();
    assert!(
        error.to_string().contains("agent.toml: cannot be read"),
        "{error}"
    );
    std::fs::write(&path, "[agent]\nnmae = 1\n").unwrap();
    let error = Config::load(Some(&path)).unwrap_err().to_string();
    assert!(
        error.contains("agent.toml: line 2: `agent.nmae`"),
        "{error}"
    );
    std::fs::write(&path, WHOLE).unwrap();
    Config::load(Some(&path)).unwrap();
}
