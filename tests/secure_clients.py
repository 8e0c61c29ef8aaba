#!/usr/bin/env python3
"""Runs the commands of docs/security.md as they stand there, starts `tributary-agent` with what they
made, and comes with MQTT clients that others wrote: over TLS, with passwords and certificates.

    python3 -m pip install -r tests/requirements.txt     # and mosquitto_pub from mosquitto-clients
    cargo build --release -p tributary-agent
    python3 tests/secure_clients.py target/release/tributary-agent

Clients: paho-mqtt as MQTT 3.1.1 and 5, mosquitto_pub, mosquitto_sub. Exit code 0 only if every check passed.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import paho.mqtt.client as paho

HERE = pathlib.Path(__file__).resolve().parent
SECURITY = HERE.parent / "docs" / "security.md"
PASSWORD = "correct horse"
# Ends what would otherwise hang; no measure of speed.
PATIENCE_S = 120

passed = failed = 0


def check(what, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else ': ' + str(why)}", flush=True)


def shell(block, folder, path):
    """A block of the document, in bash; each password that is asked for is read from its input."""
    environment = dict(os.environ, PATH=f"{path}:{os.environ['PATH']}")
    return subprocess.run(
        ["bash", "-eu", "-c", block],
        cwd=folder,
        env=environment,
        input=f"{PASSWORD}\n",
        text=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )


def run_the_document(folder, agent):
    """The commands as people copy them; then the users that the rest needs."""
    (folder / "bin").mkdir()
    (folder / "bin" / "tributary-agent").symlink_to(agent)
    certificates, users = re.findall(r"```sh\n(.*?)```", SECURITY.read_text(), re.S)
    made = shell(certificates, folder, folder / "bin")
    check("the document's certificates are made", made.returncode == 0, made.stderr)
    for line in users.splitlines():
        done = shell(line, folder, folder / "bin")
        check(f"`{line.strip()}`", done.returncode == 0, done.stderr)
    for name, read in [("pump-8", ""), ("gone", ""), ("valve-3", " --read")]:
        add = f"tributary-agent user add {name} --file users.toml --publish 'plant/%u/#'{read}"
        done = shell(add, folder, folder / "bin")
        check(f"{name} is added", done.returncode == 0, done.stderr)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def configure(folder, ports):
    (folder / "agent.toml").write_text(
        f"""[agent]
data_dir = "{folder}/data"
[source.listener]
address = "none"
users = "{folder}/users.toml"
[source.listener.tls]
address = "0.0.0.0:{ports['mqtt']}"
certificate = "{folder}/gateway-7.pem"
key = "{folder}/gateway-7.key"
client_ca = "{folder}/ca.pem"
client_certificate = "optional"
publish = ["devices/%u/#"]
[http]
address = "127.0.0.1:{ports['http']}"
"""
    )


class Visit:
    """One connection of paho: what CONNACK said, and what became of each publication."""

    def __init__(self, folder, port, protocol, user=None, password=None, device=None):
        self.connected = threading.Event()
        self.reason, self.outcomes = None, {}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        pair = (str(folder / f"{device}.pem"), str(folder / f"{device}.key")) if device else ()
        self.client.tls_set(str(folder / "ca.pem"), *pair)
        if user:
            self.client.username_pw_set(user, password)
        self.client.on_connect = self.on_connect
        self.client.on_publish = self.on_publish
        self.client.connect("localhost", port)
        self.client.loop_start()
        self.connected.wait(PATIENCE_S)

    def on_connect(self, _client, _userdata, _flags, reason, _properties):
        self.reason = reason
        self.connected.set()

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        self.outcomes[mid] = reason

    def publish(self, topic):
        message = self.client.publish(topic, "1", qos=1)
        message.wait_for_publish(PATIENCE_S)
        return self.outcomes.get(message.mid)

    def subscribe(self, *filters):
        """The code of each filter."""
        answered, codes = threading.Event(), []

        def on_subscribe(_client, _userdata, _mid, reasons, _properties):
            codes.extend(reason.value for reason in reasons)
            answered.set()

        self.client.on_subscribe = on_subscribe
        self.client.subscribe([(name, 1) for name in filters])
        answered.wait(PATIENCE_S)
        return codes

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


def visits(folder, port):
    for name, protocol in [("paho-311", paho.MQTTv311), ("paho-5", paho.MQTTv5)]:
        visit = Visit(folder, port, protocol, "pump-8", PASSWORD)
        check(f"{name}: a user gets in over TLS", visit.reason == 0, visit.reason)
        outcome = visit.publish("plant/pump-8/t")
        check(f"{name}: and publishes", outcome is not None and not outcome.is_failure, outcome)
        outcome = visit.publish("plant/pump-9/t")
        refused = outcome is not None and outcome.is_failure
        expected = protocol == paho.MQTTv5
        check(f"{name}: beyond its filters it is {'' if expected else 'not '}told so",
              refused == expected, outcome)
        visit.leave()
        for what, user, password, words in [
            ("a wrong password", "pump-8", "wrong", "Bad user name or password"),
            ("an unknown user", "nobody", PASSWORD, "Bad user name or password"),
            ("nobody", None, None, "Not authorized"),
        ]:
            visit = Visit(folder, port, protocol, user, password)
            check(f"{name}: {what} is told `{words}`", str(visit.reason) == words, visit.reason)
            visit.leave()
        visit = Visit(folder, port, protocol, device="pump-7")
        check(f"{name}: a certificate gets in", visit.reason == 0, visit.reason)
        outcome = visit.publish("devices/pump-7/t")
        check(f"{name}: and publishes below its name", not outcome.is_failure, outcome)
        visit.leave()


def mosquitto(folder, port, topic, *more):
    command = ["mosquitto_pub", "-h", "localhost", "-p", str(port), "-q", "1", "-m", "1"]
    command += ["--cafile", str(folder / "ca.pem"), "-t", topic, *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    return ended.returncode, ended.stderr.strip()


def mosquitto_visits(folder, port):
    password = ["-u", "pump-8", "-P", PASSWORD]
    device = ["--cert", str(folder / "pump-7.pem"), "--key", str(folder / "pump-7.key")]
    for version in ["mqttv311", "mqttv5"]:
        ended = mosquitto(folder, port, "plant/pump-8/m", "-V", version, *password)
        check(f"mosquitto_pub {version}: with a password", ended == (0, ""), ended)
        ended = mosquitto(folder, port, "devices/pump-7/m", "-V", version, *device)
        check(f"mosquitto_pub {version}: with a certificate", ended == (0, ""), ended)
        ended = mosquitto(folder, port, "plant/pump-8/m", "-V", version, "-u", "pump-8", "-P", "x")
        check(f"mosquitto_pub {version}: not with a wrong password", ended[0] != 0, ended)
    ended = mosquitto(folder, port, "a", "--tls-version", "tlsv1.2", *password)
    check("mosquitto_pub: with TLS 1.2", ended[0] == 0, ended)


def readers(folder, port):
    """Who may read sees what it may, and the others are told that they may not."""
    filters = ["tributary/alerts/#", "tributary/alerts/plant/valve-3/t",
               "tributary/alerts/plant/pump-8/t", "tributary/status", "plant/#"]
    for name, protocol in [("paho-311", paho.MQTTv311), ("paho-5", paho.MQTTv5)]:
        no, elsewhere = (0x80, 0x80) if protocol == paho.MQTTv311 else (0x87, 0x83)
        for user, expected in [
            ("pump-8", [no, no, no, no, elsewhere]),
            ("valve-3", [1, 1, no, 1, elsewhere]),
            ("dashboard", [1, 1, 1, 1, elsewhere]),
        ]:
            visit = Visit(folder, port, protocol, user, PASSWORD)
            codes = visit.subscribe(*filters)
            check(f"{name}: {user} is granted what it may read", codes == expected, codes)
            visit.leave()
    for version in ["mqttv311", "mqttv5"]:
        command = ["mosquitto_sub", "-h", "localhost", "-p", str(port), "-V", version, "-q", "1"]
        command += ["--cafile", str(folder / "ca.pem"), "-u", "dashboard", "-P", PASSWORD]
        command += ["-t", "tributary/#", "-C", "1", "-F", "%t %r", "-W", str(PATIENCE_S)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S + 30)
        good = ended.returncode == 0 and ended.stdout == "tributary/status 1\n"
        check(f"mosquitto_sub {version}: a dashboard has the retained status", good, ended)


def removal(folder, port):
    """A user that is removed is put out, without anybody saying so to the agent."""
    visit = Visit(folder, port, paho.MQTTv5, "gone", PASSWORD)
    ended = threading.Event()
    visit.client.on_disconnect = lambda *_: ended.set()
    shell("tributary-agent user rm gone --file users.toml", folder, folder / "bin")
    check("a user that is removed is put out", ended.wait(PATIENCE_S), "still there")
    visit.leave()


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def figures(port):
    found = metrics(port)
    prefix = "tributary_agent_mqtt_"
    # paho: one publication in, one beyond, one by certificate; mosquitto_pub: two and one.
    for name, expected in [
        ("messages_total", 2 * 2 + 2 * 2),
        ("refused_topic_total", 2 + 1),
        ('closed_total{reason="wrong_password"}', 2 + 2),
        ('closed_total{reason="unknown_user"}', 2),
        ('closed_total{reason="no_credentials"}', 2),
        ('closed_total{reason="revoked"}', 1),
        ('identified_total{by="certificate"}', 2 + 2),
        ('identified_total{by="password"}', 4),
        # By both versions: of five filters pump-8 is refused all, valve-3 two, dashboard one.
        ("subscriptions_refused_total", 2 * (5 + 2 + 1)),
        ("subscriptions_total", 2 * (3 + 4) + 2),
        ("users", 3),
    ]:
        value = found.get(prefix + name)
        check(f"{prefix}{name} is {expected}", value == expected, value)


def wait_until_up(process, port):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            time.sleep(0.05)
    return False


def run(agent, folder):
    run_the_document(folder, agent)
    ports = {"mqtt": free_port(), "http": free_port()}
    configure(folder, ports)
    config = ["--config", str(folder / "agent.toml")]
    checked = subprocess.run([agent, "check", *config], capture_output=True, text=True, check=False)
    check("`check` finds nothing wrong", checked.returncode == 0 and not checked.stderr,
          checked.stderr)
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([agent, "run", *config], stdout=log, stderr=log)
    try:
        up = wait_until_up(process, ports["http"])
        check("the agent is ready", up, (folder / "log").read_text())
        if not up:
            return
        visits(folder, ports["mqtt"])
        mosquitto_visits(folder, ports["mqtt"])
        readers(folder, ports["mqtt"])
        removal(folder, ports["mqtt"])
        figures(ports["http"])
        said = (folder / "log").read_text()
        check("no password is in the log", PASSWORD not in said and "$argon2" not in said, said)
        process.send_signal(signal.SIGTERM)
        check("SIGTERM ends it with exit code 0", process.wait(PATIENCE_S) == 0, said)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path, help="the program `tributary-agent`")
    arguments = parser.parse_args()
    for program, package in [("mosquitto_pub", "mosquitto-clients"),
                             ("mosquitto_sub", "mosquitto-clients"), ("openssl", "openssl")]:
        if not shutil.which(program):
            parser.error(f"{program} is not installed: Debian has it in {package}")
    with tempfile.TemporaryDirectory(prefix="tributary-secure-") as folder:
        run(arguments.binary.resolve(), pathlib.Path(folder))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
