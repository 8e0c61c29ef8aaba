//! What `[[source.mqtt]]` means, and what is said when it means nothing.

use super::super::Config;
use super::*;

fn parse(text: &str) -> Result<Vec<BrokerConfig>, Vec<String>> {
    Config::parse(text, std::iter::empty())
        .map(|config| config.brokers)
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
}

#[test]
fn an_address_is_all_that_is_needed() {
    let brokers = parse("[[source.mqtt]]\naddress = \"broker:1883\"\n").unwrap();
    let expected = BrokerConfig {
        name: "broker:1883".into(),
        host: "broker".into(),
        port: 1883,
        topics: vec!["#".into()],
        client_id: None,
        protocol: Protocol::Auto,
        user: None,
        password_file: None,
        tls: None,
        session_expiry_s: 86_400,
        receive_maximum: 1_024,
        keep_alive: Duration::from_secs(15),
        packet_bytes_max: 1 << 20,
        alerts: false,
    };
    assert_eq!(brokers, [expected]);
    assert_eq!(parse("").unwrap(), []);
}

#[test]
fn every_setting_is_read() {
    let text = r#"
[[source.mqtt]]
name = "hall 3"
address = "[2001:db8::7]:8883"
topics = ["plant/#", "$share/gates/line/+/t", "$SYS/broker/load/#"]
client_id = "gate-7"
protocol = "3.1.1"
user = "gate"
password_file = "/etc/tributary/broker-password"
session_expiry_s = 3600
receive_maximum = 4096
keep_alive_s = 30
packet_bytes_max = "4 MiB"
qos = 1
alerts = true
tls = { ca = "ca.pem", certificate = "own.pem", key = "own.key", server_name = "broker" }

[[source.mqtt]]
address = "other:1883"
"#;
    let brokers = parse(text).unwrap();
    assert_eq!(brokers.len(), 2);
    let broker = &brokers[0];
    assert_eq!(broker.name, "hall 3");
    assert_eq!((broker.alerts, brokers[1].alerts), (true, false));
    assert_eq!(broker.address(), "[2001:db8::7]:8883");
    assert_eq!(broker.topics.len(), 3);
    assert_eq!(broker.client_id.as_deref(), Some("gate-7"));
    assert_eq!(broker.protocol, Protocol::V4);
    assert_eq!(broker.user.as_deref(), Some("gate"));
    assert_eq!(
        (broker.session_expiry_s, broker.receive_maximum),
        (3_600, 4_096)
    );
    assert_eq!(broker.keep_alive, Duration::from_secs(30));
    assert_eq!(broker.packet_bytes_max, 4 << 20);
    let tls = TlsFiles {
        ca: "ca.pem".into(),
        identity: Some(("own.pem".into(), "own.key".into())),
        server_name: Some("broker".into()),
    };
    assert_eq!(broker.tls, Some(tls));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"[[source.mqtt]]
adress = "broker:1883"
topics = ["plant/#/t"]
protocol = "4"
password_file = "x"
receive_maximum = 20
keep_alive_s = 1
packet_bytes_max = 1000
qos = 2
tls = { certificate = "own.pem" }
[[source.mqtt]]
address = "broker"
topics = ["tributary/#"]
client_id = ""
"#;
    let wrong = parse(text).unwrap_err().join("\n");
    for part in [
        "line 2: `source.mqtt[0].adress` is not known; did you mean `source.mqtt[0].address`?",
        "`source.mqtt[0].address` is missing: host and port of the broker, like `broker:1883`",
        "line 3: `source.mqtt[0].topics` holds the filter \"plant/#/t\", which has a `#` that",
        "line 4: `source.mqtt[0].protocol` is \"4\"; expected `auto`, `5` or `3.1.1`",
        "`source.mqtt[0].user` is missing: MQTT takes no password without a user",
        "line 6: `source.mqtt[0].receive_maximum` is 20; expected 1024 to 4096",
        "line 7: `source.mqtt[0].keep_alive_s` is 1; expected 5 to 600",
        "line 8: `source.mqtt[0].packet_bytes_max` is 1000 bytes; expected 256 KiB to 16 MiB",
        "line 9: `source.mqtt[0].qos` is 2; only 1 is possible",
        "`source.mqtt[0].tls.ca` is missing",
        "`source.mqtt[0].tls.key` is missing: certificate and key go together",
        "line 12: `source.mqtt[1].address` holds \"broker\"; expected host and port",
        "line 13: `source.mqtt[1].topics` holds the filter \"tributary/#\", which is Tributary's",
        "line 14: `source.mqtt[1].client_id` is not usable",
    ] {
        assert!(wrong.contains(part), "`{part}` is not in\n{wrong}");
    }
    assert_eq!(wrong.lines().count(), 14, "{wrong}");
}

#[test]
fn sources_are_told_apart_and_bounded() {
    let one = "[[source.mqtt]]\naddress = \"broker:1883\"\n";
    let wrong = parse(&one.repeat(2)).unwrap_err();
    assert!(
        wrong[0].contains("is the name of another [[source.mqtt]]"),
        "{wrong:?}"
    );
    let same = format!("{one}client_id = \"a\"\n{one}name = \"b\"\nclient_id = \"a\"\n");
    let wrong = parse(&same).unwrap_err();
    assert!(
        wrong[0].contains("each would end the other's connection"),
        "{wrong:?}"
    );
    let many: String = (0..=BROKERS_MAX)
        .map(|n| format!("[[source.mqtt]]\naddress = \"b{n}:1883\"\n"))
        .collect();
    let wrong = parse(&many).unwrap_err();
    assert!(wrong[0].contains("at most 8"), "{wrong:?}");
    let many: String = (0..65).map(|n| format!("\"t/{n}\",")).collect();
    let wrong = parse(&format!("{one}topics = [{many}]")).unwrap_err();
    assert!(
        wrong[0].contains("holds 65 topic filters; expected 1 to 64"),
        "{wrong:?}"
    );
}

#[test]
fn files_are_looked_at_before_they_are_needed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut broker = parse("[[source.mqtt]]\naddress = \"b:1\"\n")
        .unwrap()
        .remove(0);
    broker.check().unwrap();
    broker.password_file = Some(at("password"));
    let missing = broker.check().unwrap_err().to_string();
    assert!(
        missing.contains("password_file") && missing.contains("No such file"),
        "{missing}"
    );
    std::fs::write(at("password"), "\nsecond line\n").unwrap();
    let empty = broker.check().unwrap_err().to_string();
    assert!(
        empty.contains("its first line, the password, is empty"),
        "{empty}"
    );
    std::fs::write(at("password"), "x".repeat(5_000)).unwrap();
    let large = broker.check().unwrap_err().to_string();
    assert!(large.contains("over 4096 bytes"), "{large}");
    std::fs::write(at("password"), "good\n").unwrap();
    std::fs::write(at("ca.pem"), "no certificate").unwrap();
    broker.tls = Some(TlsFiles {
        ca: at("ca.pem"),
        identity: None,
        server_name: None,
    });
    let empty = broker.check().unwrap_err().to_string();
    assert!(empty.contains("certificate of an authority in "), "{empty}");
    let files = tributary_uplink::authority::open_or_create(&at("pki")).unwrap();
    let tls = broker.tls.as_mut().unwrap();
    tls.ca = files.ca;
    tls.identity = Some((files.agent_certificate.clone(), files.aggregator_key));
    let mixed = broker.check().unwrap_err().to_string();
    assert!(mixed.starts_with("TLS: "), "{mixed}");
    broker.tls.as_mut().unwrap().identity = Some((files.agent_certificate, files.agent_key));
    broker.check().unwrap();
    broker.tls.as_mut().unwrap().server_name = Some("not a name".into());
    let name = broker.check().unwrap_err().to_string();
    assert!(
        name.contains("neither a host name nor an address"),
        "{name}"
    );
}
