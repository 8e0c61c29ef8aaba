//! Ten thousand connections that say nothing, beside a fleet that publishes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Read;
use std::net::TcpStream;
use tributary_tests::limits::PATIENCE;
use tributary_tests::site::{Site, assert_clean, backlog_gone};

const SILENT: u64 = 10_000;
/// Files that the test needs beside them.
const OTHER_FILES: u64 = 500;

/// As many of [`SILENT`] as this process may hold open.
fn crowd() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    SILENT.min(most.saturating_sub(OTHER_FILES))
}

/// Bytes of memory that a process held at most.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits: String = line.unwrap().chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u64>().unwrap() * 1_024
}

#[test]
fn ten_thousand_that_say_nothing_are_closed_and_the_fleet_goes_on() {
    let site = Site::new("crowd");
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(50, 10.0);
    fleet.acknowledged(100);
    let before = peak_bytes(agent.id());
    let silent: Vec<TcpStream> = (0..crowd())
        .map(|_| TcpStream::connect(site.mqtt).unwrap())
        .collect();
    fleet.acknowledged(100);
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed, nothing said");
    }
    let grown = peak_bytes(agent.id()) - before;
    assert!(grown < 64 << 20, "{grown} bytes for who says nothing");
    fleet.acknowledged(100);
    let summary = fleet.end();
    backlog_gone(&agent);
    assert_clean(&site.settle(agent, aggregator), &summary);
}
