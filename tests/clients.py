#!/usr/bin/env python3
"""Publishes CSV files to `tributary run` with MQTT clients that others wrote, and looks for every
value in the lake: equal to the last bit, once.

    python3 -m pip install -r tests/requirements.txt     # and mosquitto_pub from mosquitto-clients
    cargo build --release
    npm install --prefix target/clients mqtt@5           # and Node.js
    python3 tests/clients.py target/release/tributary [--csv FILE ...] \
        [--node-modules target/clients/node_modules]

Clients: paho-mqtt as MQTT 3.1.1 and as MQTT 5, mosquitto_pub, and MQTT.js where it is given. Each
publishes each file at QoS 1 and at QoS 2, one JSON object a row, under devices of its own; paho-mqtt
also one value a message, whose time is an MQTT 5 user property. paho-mqtt and mosquitto_sub, by both
versions, subscribe to what the agent publishes: its retained status. Exit code 0 only if every check
passed.
"""

import argparse
import collections
import csv
import datetime
import functools
import json
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
import pyarrow.parquet as parquet

HERE = pathlib.Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"
SERIES = [
    "artificialNoAnomaly/art_daily_no_noise.csv",
    "realAdExchange/exchange-4_cpc_results.csv",
    "realAWSCloudwatch/ec2_disk_write_bytes_c0d644.csv",
    "realKnownCause/rogue_agent_key_hold.csv",
    "realTraffic/speed_t4013.csv",
]
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# Ends what would otherwise hang; no measure of speed.
PATIENCE_S = 300
# Below the agent's receive maximum, which MQTT 3.1.1 clients are not told.
IN_FLIGHT = 50

passed = failed = 0


def check(what, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else ': ' + str(why)}", flush=True)


def default_files():
    files = sorted((SHARED / "wire").glob("*.csv"))
    files += [path for name in SERIES if (path := SHARED / "quality/nab/data" / name).exists()]
    return sorted((HERE / "data").glob("*.csv")) + files


def microseconds(text):
    text = text.replace(" ", "T").replace("Z", "")
    whole, _, fraction = text.partition(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1) + int(fraction.ljust(6, "0"))


def value_of(text):
    """(JSON, type, value as compared) of a cell, by the agent's documented rule: an integer is an
    i64 where that holds it, otherwise an f64 where that holds it exactly, otherwise its digits."""
    if text in ("true", "false"):
        return text, "bool", text == "true"
    if not NUMBER.fullmatch(text):
        return json.dumps(text, ensure_ascii=False), "str", text
    if re.fullmatch(r"-?[0-9]+", text) and text != "-0":
        if -(2**63) <= int(text) < 2**63:
            return text, "i64", int(text)
        if int(float(text)) != int(text):
            return text, "str", text
    return text, "f64", struct.pack("<d", float(text))


class File:
    """A CSV as messages, and the readings that they must become."""

    def __init__(self, path):
        self.name = path.stem
        self.lines, self.values, self.readings = [], [], []
        with open(path, newline="", encoding="utf-8") as opened:
            head, *rows = csv.reader(opened)
        self.columns = head[1:]
        # An object with a member `value` is the reading of its topic; any other one names its
        # metrics itself.
        self.topic_end = "/value" if "value" in self.columns else ""
        for time_text, *cells in rows:
            stamp = time_text.replace(" ", "T").rstrip("Z") + "Z"
            members = [f'"ts":"{stamp}"']
            for column, cell in zip(self.columns, cells):
                if cell:
                    literal, kind, value = value_of(cell)
                    members.append(f"{json.dumps(column)}:{literal}")
                    self.values.append((column, stamp, literal))
                    self.readings.append((column, microseconds(time_text), kind, value))
            self.lines.append("{" + ",".join(members) + "}")

    def expected(self, device):
        return collections.Counter((device, *reading) for reading in self.readings)


def whole_rows(device, file):
    return [(device + file.topic_end, line, None) for line in file.lines]


def single_values(device, file):
    """One value a message, its time beside it."""
    messages = []
    for column, stamp, literal in file.values:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("ts", stamp), ("trace", "none of ours")]
        messages.append((f"{device}/{column}", literal, properties))
    return messages


def publish_with_paho(protocol, messages_of, qos, port, device, file):
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id=device.replace("/", "-"), protocol=protocol
    )
    client.max_inflight_messages_set(IN_FLIGHT)
    refused = []
    client.on_publish = lambda _c, _u, _mid, reason, _p: reason.is_failure and refused.append(reason)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [
        client.publish(topic, payload, qos=qos, properties=properties)
        for topic, payload, properties in messages_of(device, file)
    ]
    for message in sent:
        message.wait_for_publish(PATIENCE_S)
    acknowledged = all(message.is_published() for message in sent)
    client.disconnect()
    client.loop_stop()
    return "" if acknowledged and not refused else f"not all acknowledged; refused: {refused[:3]}"


def publish_with_mosquitto(qos, port, device, file):
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", str(qos), "-l"]
    command += ["-M", str(IN_FLIGHT)]
    command += ["-t", device + file.topic_end, "-i", device.replace("/", "-")]
    lines = "".join(line + "\n" for line in file.lines).encode()
    ended = subprocess.run(command, input=lines, capture_output=True, timeout=PATIENCE_S)
    said = ended.stderr.decode(errors="replace").strip()
    return "" if ended.returncode == 0 and not said else f"exit {ended.returncode}: {said}"


def publish_with_mqttjs(modules, qos, port, device, file):
    command = ["node", str(HERE / "clients.mjs"), str(modules), str(port)]
    command += [device.replace("/", "-"), device + file.topic_end, str(qos), str(IN_FLIGHT)]
    lines = "".join(line + "\n" for line in file.lines).encode()
    ended = subprocess.run(command, input=lines, capture_output=True, timeout=PATIENCE_S)
    said = ended.stderr.decode(errors="replace").strip()
    return "" if ended.returncode == 0 and not said else f"exit {ended.returncode}: {said}"


# By name: each publishes one file at one QoS, and says what went wrong.
CLIENTS = {
    "paho-311": functools.partial(publish_with_paho, paho.MQTTv311, whole_rows),
    "paho-5": functools.partial(publish_with_paho, paho.MQTTv5, whole_rows),
    "paho-5-said": functools.partial(publish_with_paho, paho.MQTTv5, single_values),
    "mosquitto": publish_with_mosquitto,
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until_up(process, mqtt, console):
    """Ready as it says itself, and MQTT listens."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{console}/readyz", timeout=5) as answer:
                socket.create_connection(("127.0.0.1", mqtt), timeout=5).close()
                if answer.status == 200:
                    return True
        except OSError:
            time.sleep(0.05)
    return False


def publish_all(files, port):
    """All files of all clients at the same time; what went wrong with each, or an empty text."""
    outcomes = {}

    def run(client, qos, file):
        name = f"{client}-qos{qos}"
        try:
            outcomes[name, file] = CLIENTS[client](qos, port, f"{name}/{file.name}", file)
        except Exception as error:  # whatever it is, the check of this file shows it
            outcomes[name, file] = repr(error)

    for qos in (1, 2):
        threads = [threading.Thread(target=run, args=(c, qos, f)) for c in CLIENTS for f in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return outcomes


def subscribe_with_paho(protocol, port, filters):
    """What each filter was granted or refused with, and what came: topic, retained, JSON."""
    answered, heard, codes, came = threading.Event(), threading.Event(), [], []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)

    def on_subscribe(_client, _userdata, _mid, reasons, _properties):
        codes.extend(reason.value for reason in reasons)
        answered.set()

    def on_message(_client, _userdata, message):
        came.append((message.topic, message.retain, json.loads(message.payload)))
        # What clients published was judged: alerts may come before.
        if message.topic == "tributary/status":
            heard.set()

    client.on_subscribe, client.on_message = on_subscribe, on_message
    client.on_connect = lambda *_: client.subscribe([(name, qos) for name, qos in filters])
    client.connect("127.0.0.1", port)
    client.loop_start()
    answered.wait(PATIENCE_S)
    heard.wait(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    return codes, came


def subscribe_with_mosquitto(version, port, name):
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-V", version, "-q", "1"]
    command += ["-t", name, "-C", "1", "-F", "%t %r %p", "-W", str(PATIENCE_S)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S + 30)
    return ended.returncode, ended.stdout.strip(), ended.stderr.strip()


def subscribers(port):
    """Other people's clients read what the agent publishes, and nothing of what clients do."""
    filters = [("tributary/#", 2), ("tributary/status", 0), ("plant/#", 1), ("#", 1)]
    for name, protocol, refused in [("paho-311", paho.MQTTv311, 0x80), ("paho-5", paho.MQTTv5, 0x83)]:
        codes, came = subscribe_with_paho(protocol, port, filters)
        check(f"{name}: each filter is granted or refused", codes == [1, 0, refused, refused], codes)
        ours = all(topic.startswith("tributary/") for topic, _, _ in came)
        check(f"{name}: nothing that clients published comes", ours, {topic for topic, _, _ in came})
        said = [(retained, said) for topic, retained, said in came if topic == "tributary/status"]
        states = {(retained, state.get("state"), state.get("schema")) for retained, state in said}
        check(f"{name}: the status is retained", states == {(True, "running", 1)}, said)
    for version in ["mqttv311", "mqttv5"]:
        code, said, _ = subscribe_with_mosquitto(version, port, "tributary/+")
        good = code == 0 and said.startswith('tributary/status 1 {"schema":1')
        check(f"mosquitto_sub {version}: the status is retained", good, (code, said))
        _, said, error = subscribe_with_mosquitto(version, port, "plant/#")
        good = "denied" in error and not said
        check(f"mosquitto_sub {version}: others' topics are refused", good, (said, error))


def read_lake(lake):
    """How often each (device, metric, µs, type, value) stands in the lake."""
    found = collections.Counter()
    names = ["device", "metric", "event_time", "value_type"]
    kinds = ["value_f64", "value_i64", "value_bool", "value_str"]
    for path in sorted((lake / "readings").rglob("*.parquet")):
        table = parquet.ParquetFile(path).read(columns=names + kinds)
        columns = {name: table.column(name) for name in names + kinds}
        columns["event_time"] = columns["event_time"].cast("int64")
        for row in zip(*(columns[name].to_pylist() for name in names + kinds)):
            (device, metric, moment, kind), values = row[:4], row[4:]
            given = [value for value in values if value is not None]
            value = values[kinds.index("value_" + kind)]
            if len(given) != 1 or value is None:
                found[(device, metric, moment, "not one value", repr(values))] += 1
                continue
            value = struct.pack("<d", value) if kind == "f64" else value
            found[(device, metric, moment, kind, value)] += 1
    return found


def compare(outcomes, found):
    """Every file of every client, value by value; then that nothing else is there."""
    of_device = collections.defaultdict(collections.Counter)
    for row, count in found.items():
        of_device[row[0]][row] += count
    for (client, file), why in sorted(outcomes.items(), key=lambda item: item[0][0]):
        device = f"{client}/{file.name}"
        expected, there = file.expected(device), of_device.pop(device, collections.Counter())
        missing, surplus = expected - there, there - expected
        if missing:
            why += f" {sum(missing.values())} missing, as {next(iter(missing))}"
        if surplus:
            why += f" {sum(surplus.values())} beyond, as {next(iter(surplus))}"
        values = f"{len(file.readings):,} values"
        check(f"{client:16} {file.name}: {values}", not why and expected, why or "no values")
    check("nothing else is in the lake", not of_device, sorted(of_device)[:5])


def run(binary, files, folder):
    mqtt, console = free_port(), free_port()
    command = [binary, "run", "--data-dir", str(folder / "data")]
    command += ["--mqtt", f"127.0.0.1:{mqtt}", "--console", f"127.0.0.1:{console}"]
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        up = wait_until_up(process, mqtt, console)
        check("tributary run is ready", up, (folder / "log").read_text())
        if not up:
            return
        began = time.monotonic()
        outcomes = publish_all(files, mqtt)
        print(f"       published in {time.monotonic() - began:.1f} s", flush=True)
        subscribers(mqtt)
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        check("SIGTERM ends it with exit code 0", code == 0, (folder / "log").read_text())
        compare(outcomes, read_lake(folder / "data" / "lake"))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the program `tributary`")
    parser.add_argument("--csv", nargs="+", type=pathlib.Path, help="files instead of the default")
    parser.add_argument("--node-modules", type=pathlib.Path, help="where MQTT.js is")
    arguments = parser.parse_args()
    if arguments.node_modules:
        modules = arguments.node_modules.resolve()
        CLIENTS["mqtt.js"] = functools.partial(publish_with_mqttjs, modules)
    for program in ["mosquitto_pub", "mosquitto_sub"]:
        if not shutil.which(program):
            parser.error(f"{program} is not installed: Debian has it in mosquitto-clients")
    files = [File(path) for path in arguments.csv or default_files()]
    with tempfile.TemporaryDirectory(prefix="tributary-clients-") as folder:
        run(arguments.binary, files, pathlib.Path(folder))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
