#!/usr/bin/env python3
"""Runs the broker tests of Mosquitto's own suite against the agent's listener.

The suite is not ours: it is in Debian's source package `mosquitto` (test/broker), which this
script fetches with apt-get, or takes from --source. It starts a broker for each test; here it is
given the agent instead. What only a broker can do, which passes on what clients publish, is left out,
with the reason.
Where two servers may rightly differ, the comparison says how, below; nothing else is bent.

    tests/conformance.py target/release/tributary-agent [--source DIR] [--only PREFIX]

Exit code 1 if a test failed. docs/mqtt.md holds the result.
"""

import argparse
import os
import re
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What is run: everything that connects, publishes and leaves.
APPLICABLE = """
01-connect-bad-packet 01-connect-connack-2163 01-connect-duplicate 01-connect-invalid-id-0
01-connect-invalid-id-utf8 01-connect-invalid-protonum
01-connect-invalid-reserved 01-connect-success 01-connect-uname-invalid-utf8
01-connect-uname-no-flag 01-connect-uname-pwd-no-flag 02-subscribe-invalid-utf8
02-unsubscribe-invalid-no-topic 02-unsubscribe-qos0 02-unsubscribe-qos1 02-unsubscribe-qos2
03-publish-c2b-qos2-len 03-publish-dollar
03-publish-invalid-utf8 03-publish-qos1 03-publish-qos1-no-subscribers-v5 03-publish-qos2
03-publish-qos2-max-inflight 05-session-expiry-v5 07-will-invalid-utf8 07-will-no-flag
07-will-null-topic 09-extended-auth-unsupported 12-prop-maximum-packet-size-connect
12-prop-server-keepalive 12-prop-session-expiry-invalid 12-prop-topic-alias-invalid
13-malformed-subscribe-v5 13-malformed-unsubscribe-v5
""".split()

# What is left out, by the beginning of its name, and why.
LEFT_OUT = [
    ("01-connect-allow-anonymous", "sets Mosquitto's own configuration"),
    ("01-connect-disconnect-v5", "subscribes to what clients publish"),
    ("01-connect-invalid-id-missing", "speaks MQTT 3.1"),
    ("01-connect-uname-", "sets Mosquitto's own password file"),
    ("01-connect-zero-length-id", "sets Mosquitto's own configuration"),
    ("02-", "subscribes to what clients publish"),
    ("03-publish-dollar-v5", "lets bridges publish below $SYS"),
    ("03-publish-long-topic", "a limit of Mosquitto's: 200 levels"),
    ("03-publish-qos1-max-inflight", "sets Mosquitto's own configuration"),
    ("03-publish-qos1-queued", "sets Mosquitto's own configuration"),
    ("03-publish-qos1-retain-disabled", "sets Mosquitto's own configuration"),
    ("03-", "subscribes to what clients publish"),
    ("04-", "reads what clients retain"),
    ("05-", "subscribes to what clients publish"),
    ("06-", "needs a bridge"),
    ("07-", "subscribes to what clients publish"),
    ("08-", "sets Mosquitto's own TLS"),
    ("09-", "sets Mosquitto's own access control"),
    ("10-", "sets Mosquitto's own mount points"),
    ("11-", "needs Mosquitto's own persistence"),
    ("12-prop-assigned", "compares with the order of Mosquitto's properties"),
    ("12-prop-maximum-packet-size-broker", "sets Mosquitto's own configuration"),
    ("12-", "subscribes to what clients publish"),
    ("13-malformed-publish-v5", "sets Mosquitto's own configuration"),
    ("14-", "needs Mosquitto's dynamic security"),
]


def fetch(into):
    """Debian's source package, unpacked; by a list of sources of its own."""
    lists = into / "lists"
    lists.mkdir(parents=True, exist_ok=True)
    sources = []
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")]:
        if path.exists():
            text = path.read_text()
            sources += [line for line in text.splitlines() if line.startswith("deb ")]
    stanzas = [p.read_text() for p in Path("/etc/apt/sources.list.d").glob("*.sources")]
    if sources:
        (into / "from.list").write_text("\n".join(s.replace("deb ", "deb-src ", 1) for s in sources))
    listed = into / ("from.list" if sources else "from.sources")
    if not sources:
        text = "\n\n".join(re.sub(r"(?m)^Types:.*$", "Types: deb-src", s) for s in stanzas)
        listed.write_text(text)
    options = [
        f"-oDir::Etc::sourcelist={listed}",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::lists={lists}",
        "-oAPT::Sandbox::User=root",
    ]
    quiet = {"cwd": into, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "-qq", *options, "update"], **quiet, timeout=300)
    subprocess.run(
        ["apt-get", "-qq", *options, "source", "--download-only", "mosquitto"], **quiet, timeout=300
    )
    archive = next(into.glob("mosquitto_*.orig.tar.*"))
    subprocess.run(["tar", "xf", archive.name], **quiet, timeout=60)
    return next(path for path in into.glob("mosquitto-*") if path.is_dir())


def whole_packet(sock, first):
    """`first`, completed to a whole packet; none of these is longer than 127 bytes."""
    while len(first) < 2:
        more = sock.recv(2 - len(first))
        if not more:
            return first
        first += more
    while len(first) < 2 + first[1]:
        more = sock.recv(2 + first[1] - len(first))
        if not more:
            return first
        first += more
    return first


def same(received, expected):
    """Whether two packets of a server say the same."""
    if received == expected:
        return True
    kind = received[:1]
    if not expected:
        # The connection was to be closed: saying why before is allowed (MQTT 5, 4.13).
        refused = kind == b"\x20" and received[3] >= 0x80
        return refused or kind == b"\xe0"
    if kind != expected[:1]:
        return False
    if kind == b"\x20":
        # CONNACK: flags and reason; properties are each server's own.
        return received[2:4] == expected[2:4]
    if kind in (b"\x40", b"\x50", b"\x70"):
        # Reason 0 and an empty list of properties may be left out; 0x10, "no subscribers", is
        # never true here: every publication is kept.
        def reason(packet):
            code = packet[4] if packet[1] > 2 else 0
            return packet[2:4], 0 if code == 0x10 else code

        return reason(received) == reason(expected)
    if kind == b"\xe0" and expected[1] >= 1:
        # "Malformed" and "protocol error" are told apart at will where the standard names none.
        codes = (received[2], expected[2])
        return codes[0] == codes[1] or set(codes) <= {0x81, 0x82}
    return False


def run_one(agent, script):
    """Runs one test of the suite in this process; its exit code says how it went."""
    os.chdir(script.parent)
    sys.path[:0] = [".", ".."]
    import mosq_test

    def start_broker(filename, cmd=None, port=0, use_conf=False, expect_fail=False):
        port = port or 1888
        settings = {
            "AGENT__DATA_DIR": tempfile.mkdtemp(dir=os.environ["CONFORMANCE_DIR"]),
            "SOURCE__LISTENER__ADDRESS": f"127.0.0.1:{port}",
            "HTTP__ADDRESS": "127.0.0.1:0",
        }
        env = {f"TRIBUTARY_AGENT__{name}": value for name, value in settings.items()}
        broker = subprocess.Popen(
            [agent, "run"], stderr=subprocess.PIPE, env={**os.environ, **env}
        )
        while broker.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return broker
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise OSError("the agent ended: " + broker.stderr.read().decode())

    def expect_packet(sock, name, expected):
        received = sock.recv(max(len(expected), 1))
        if received:
            received = whole_packet(sock, received)
        if same(received, expected):
            return True
        print(f"FAIL: {name}: received {received.hex(' ')}, expected {expected.hex(' ')}")
        raise mosq_test.TestError

    mosq_test.start_broker = start_broker
    mosq_test.expect_packet = expect_packet
    sys.argv = [script.name, "1888"]
    text = script.read_text()
    # MQTT 3.1 is not spoken, and refused with the right code.
    text = re.sub(r"(?m)^(\s*)do_test\((proto_ver=)?3\)$", r"\1pass", text)
    if script.stem == "01-connect-duplicate":
        # A DISCONNECT with the reason may come before the end.
        text = text.replace("if len(data) == 0:", "if data in (b'', b'\\xe0'):")
    if script.stem in ("01-connect-success", "01-connect-invalid-id-0"):
        text = text.replace("for proto_ver in [3, 4, 5]", "for proto_ver in [4, 5]")
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=".", delete=False) as copy:
        copy.write(text)
    try:
        runpy.run_path(copy.name, run_name="__main__")
    finally:
        os.unlink(copy.name)


def reason_left_out(name):
    return next((why for start, why in LEFT_OUT if name.startswith(start)), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent", type=Path, nargs="?", default=Path("target/release/tributary-agent"))
    parser.add_argument("--fetch", type=Path, metavar="DIR", help="only fetch the suite into DIR")
    parser.add_argument("--source", type=Path, help="Mosquitto's source, unpacked")
    parser.add_argument("--only", default="", help="tests whose names begin so")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    agent = arguments.agent.resolve()
    if arguments.fetch:
        print(fetch(arguments.fetch.resolve()))
        return 0
    if arguments.one:
        run_one(agent, arguments.one)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source or fetch(Path(scratch) / "source")
        scripts = sorted((source / "test" / "broker").resolve().glob("[0-9][0-9]-*.py"))
        failed, passed, skipped, unknown = [], 0, 0, []
        for script in scripts:
            name = script.stem
            if not name.startswith(arguments.only) or name.endswith("-helper"):
                continue
            if name not in APPLICABLE:
                skipped += 1
                if reason_left_out(name) is None:
                    unknown.append(name)
                continue
            command = [sys.executable, __file__, str(agent), "--one", str(script)]
            done = subprocess.run(
                command,
                env={**os.environ, "CONFORMANCE_DIR": scratch},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                passed += 1
                print(f"ok      {name}")
            else:
                failed.append(name)
                print(f"FAILED  {name}")
                print("\n".join("    " + line for line in (done.stdout + done.stderr).splitlines()))
    if unknown:
        print("neither run nor left out with a reason:", ", ".join(unknown))
    print(f"{source.name}")
    print(f"{passed} passed, {len(failed) + len(unknown)} failed, {skipped} skipped")
    return 1 if failed or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
