//! Wrong settings and ports in use: what is wrong, where, what to do; and the exit code.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use tributary_tests::programs::{program, scratch};
use tributary_tests::site::{Site, free_address};

/// The exit code and what was said on stderr.
fn run(name: &str, arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(program(name))
        .args(arguments)
        .env("NO_COLOR", "1")
        .env("RUST_LOG", "error")
        .output()
        .unwrap();
    let code = status.code().unwrap_or_else(|| panic!("{name}: {status}"));
    (code, String::from_utf8(stderr).unwrap())
}

fn run_with(name: &str, config: &Path) -> (i32, String) {
    run(name, &["run", "--config", config.to_str().unwrap()])
}

/// Everything that `parts` say stands in what was said, and the exit code is `code`.
#[track_caller]
fn expect(said: &(i32, String), code: i32, parts: &[&str]) {
    for part in parts {
        assert!(said.1.contains(part), "`{part}` is not in\n{}", said.1);
    }
    assert_eq!(said.0, code, "{}", said.1);
    assert!(!said.1.contains("panicked"), "{}", said.1);
}

#[test]
fn wrong_settings_are_all_named_with_line_reason_and_nearest_name() {
    let dir = scratch("config");
    let file = dir.path().join("wrong.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    write(
        "[agent]\ndata_dirr = \"x\"\n\n[source.listener]\naddress = \"0.0.0.0:1883\"\n\
         [wal]\nprofile = \"fast\"\nmax_delay_ms = \"soon\"\n[uplnk]\nendpoints = []\n",
    );
    let parts = [
        "wrong.toml: line 2: `agent.data_dirr` is not known; did you mean `agent.data_dir`?",
        "line 5: `source.listener.address` is 0.0.0.0:1883, which others can reach",
        "line 7: `wal.profile` is \"fast\"; expected `default`, `low-latency` or `sd-card`",
        "line 8: `wal.max_delay_ms`",
        "line 9: `uplnk` is not known; did you mean `uplink`?",
    ];
    expect(&run_with("tributary-agent", &file), 2, &parts);

    write("[uplink]\naddres = \"x\"\n[lake]\nflush_interval_ms = 1\n[http]\naddress = 8080\n");
    let parts = [
        "wrong.toml: line 2: `uplink.addres` is not known; did you mean `uplink.address`?",
        "line 4: `lake.flush_interval_ms` is 1",
        "line 6: `http.address`",
    ];
    expect(&run_with("tributary-aggregator", &file), 2, &parts);

    write("[machine]\nmqt = \"127.0.0.1:1883\"\nconsole = \"8080\"\n");
    let parts = [
        "wrong.toml: line 2: `machine.mqt` is not known; did you mean `machine.mqtt`?",
        "line 3: `machine.console` is \"8080\"; expected an address and port",
    ];
    expect(&run_with("tributary", &file), 2, &parts);
}

#[test]
fn what_is_no_configuration_is_said_to_be_none() {
    let dir = scratch("config");
    let absent = dir.path().join("absent.toml");
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "[agent\n").unwrap();
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0, 1]).unwrap();
    for name in ["tributary-agent", "tributary-aggregator", "tributary"] {
        expect(
            &run_with(name, &absent),
            2,
            &["absent.toml", "No such file"],
        );
        expect(&run_with(name, &broken), 2, &["broken.toml", "line 1"]);
        expect(&run_with(name, &binary), 2, &["binary.toml"]);
        expect(&run_with(name, dir.path()), 2, &["Is a directory"]);
        expect(&run(name, &["runn"]), 2, &["runn", "'run'"]);
    }
}

#[test]
fn missing_certificates_are_named() {
    let site = Site::new("config");
    std::fs::remove_file(&site.pki.aggregator.key).unwrap();
    let config = site.path().join("aggregator.toml");
    let path = site.pki.aggregator.key.to_str().unwrap();
    expect(
        &run_with("tributary-aggregator", &config),
        2,
        &["key", path, "[uplink]"],
    );
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let site = Site::new("ports");
    let config = |name: &str| site.path().join(format!("{name}.toml"));
    let port = site.mqtt.port().to_string();
    let taken = TcpListener::bind(site.mqtt).unwrap();
    let parts = [&*port, "in use", "[source.listener]"];
    expect(&run_with("tributary-agent", &config("agent")), 1, &parts);
    drop(taken);

    let port = site.uplink.port().to_string();
    let taken = UdpSocket::bind(site.uplink).unwrap();
    let parts = [&*port, "in use", "`address` under [uplink]"];
    expect(
        &run_with("tributary-aggregator", &config("aggregator")),
        1,
        &parts,
    );
    drop(taken);

    for (http, name) in [
        (site.agent_http, "agent"),
        (site.aggregator_http, "aggregator"),
    ] {
        let port = http.port().to_string();
        let taken = TcpListener::bind(http).unwrap();
        let parts = [&*port, "in use", "`address`", "[http]"];
        expect(
            &run_with(&format!("tributary-{name}"), &config(name)),
            1,
            &parts,
        );
        drop(taken);
    }
}

#[test]
fn one_machine_names_the_port_and_the_argument() {
    let dir = scratch("ports");
    let (mqtt, console) = (free_address(), free_address());
    let run = || {
        let data = dir.path().join("data");
        let (mqtt, console) = (mqtt.to_string(), console.to_string());
        let data = data.to_str().unwrap();
        run(
            "tributary",
            &[
                "run",
                "--data-dir",
                data,
                "--mqtt",
                &mqtt,
                "--console",
                &console,
            ],
        )
    };
    let taken = TcpListener::bind(mqtt).unwrap();
    expect(&run(), 1, &[&mqtt.to_string(), "in use", "--mqtt"]);
    drop(taken);
    let taken = TcpListener::bind(console).unwrap();
    expect(&run(), 1, &[&console.to_string(), "in use", "--console"]);
    drop(taken);
}

#[test]
fn a_data_directory_has_one_owner() {
    let site = Site::new("owner");
    let mut agent = site.agent();
    agent.up();
    let mut other = std::fs::read_to_string(site.path().join("agent.toml")).unwrap();
    for address in [site.mqtt, site.agent_http] {
        other = other.replace(&address.to_string(), &free_address().to_string());
    }
    let path = site.path().join("other.toml");
    std::fs::write(&path, other).unwrap();
    expect(
        &run_with("tributary-agent", &path),
        1,
        &["agent", "another"],
    );
}
