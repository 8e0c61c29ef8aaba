#!/usr/bin/env python3
"""Alerts by readers that others wrote: the golden alert against the published JSON Schema, and the
lake's table `alerts` by pyarrow.

    python3 -m pip install -r tests/requirements.txt
    python3 tests/alerts.py [--lake DIR ...]

Of each lake every row is looked at: where `json` is an alert of schema 1, it must satisfy the schema and
the columns must say what it says; where it is none, they must be null. Exit code 0 only if every check
passed; a lake without alerts is a failure.
"""

import argparse
import copy
import datetime
import json
import pathlib
import sys

import jsonschema
import pyarrow
import pyarrow.parquet as parquet

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "docs/alert.schema.json").read_text())
GOLDEN = json.loads((ROOT / "protocol/tests/data/alert.json").read_text())
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
TEXTS = "tenant agent buffer lane alert_id state kind device metric unit detector part revision severity text json"
NUMBERS = {"batch": "int64", "row": "int32", "score": "double", "value": "double", "late": "bool",
           "in_doubt": "bool"}
TIMES = "event_time received_time detection_time window_from window_to"
SAME = "state kind unit detector part revision severity score value late text"

failed = 0


def check(what, good, why=""):
    global failed
    if not good:
        failed += 1
        print(f"FAILED {what}: {why}")


def complaints(alert):
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(alert)]


def check_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check("the golden alert", not complaints(GOLDEN), complaints(GOLDEN))
    wrong = {
        "schema": 2, "id": "short", "state": "gone", "kind": "", "detector": "rule:", "part": "tail",
        "revision": 7, "severity": "bad", "score": 1.5, "value": "27.5", "event_time": "2026-11-20",
        "window": {"from": GOLDEN["event_time"]}, "around": [[1.5, 2]], "late": None, "text": "",
    }
    for member, value in wrong.items():
        spoiled = copy.deepcopy(GOLDEN)
        spoiled[member] = value
        check(f"`{member}` as {value!r}", complaints(spoiled), "the schema takes it")
    for member in SCHEMA["required"]:
        spoiled = {name: value for name, value in GOLDEN.items() if name != member}
        check(f"without `{member}`", complaints(spoiled), "the schema takes it")


def micros(text):
    """Of RFC 3339, which Python's parser reads with an offset only."""
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH
    return moment // datetime.timedelta(microseconds=1)


def check_columns(path, table):
    kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
    expected = dict.fromkeys(TEXTS.split(), "string") | NUMBERS
    expected |= dict.fromkeys(TIMES.split(), "timestamp[us, tz=UTC]")
    check(f"columns of {path.name}", kinds == expected, f"{kinds}")


def alert_of(text):
    try:
        alert = json.loads(text)
    except ValueError:
        return None
    return alert if isinstance(alert, dict) and alert.get("schema") == 1 else None


def check_row(row):
    """Whether it is an alert."""
    alert = alert_of(row["json"])
    name = f"row {row['row']} of batch {row['batch']}"
    if alert is None:
        filled = [column for column in SAME.split() + ["alert_id"] if row[column] is not None]
        check(name, not filled, f"it is no alert, and has {filled}")
        return False
    check(name, not complaints(alert), f"{complaints(alert)}: {alert}")
    expected = {column: alert.get(column) for column in SAME.split()}
    expected["alert_id"] = alert["id"]
    expected["detection_time"] = micros(alert["detection_time"])
    window = alert["window"] or {}
    for end in ("from", "to"):
        expected[f"window_{end}"] = micros(window[end]) if window else None
    said = {column: row[column] for column in expected}
    check(name, said == expected, f"{said} instead of {expected}")
    return True


def check_lake(lake):
    files = sorted((lake / "alerts").rglob("*.parquet"))
    alerts, others = 0, 0
    for path in files:
        table = parquet.ParquetFile(path).read()
        check_columns(path, table)
        for column in TIMES.split():
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, table.column(column).cast(pyarrow.int64()))
        for row in table.to_pylist():
            if check_row(row):
                alerts += 1
            else:
                others += 1
    check(str(lake), alerts > 0, "no alert in it")
    print(f"{lake}: {alerts} alerts, {others} other rows in {len(files)} files")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", type=pathlib.Path, action="append", default=[])
    check_schema()
    for lake in parser.parse_args().lake:
        check_lake(lake)
    print("all is well" if failed == 0 else f"{failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
