#!/usr/bin/env python3
"""Aggregates by readers that others wrote: the golden aggregate against the published JSON Schema, and the
lake's table `aggregates` by pyarrow.

    python3 -m pip install -r tests/requirements.txt
    python3 tests/aggregates.py [--lake DIR ...]

As tests/alerts.py: where `json` is an aggregate of schema 1, it must satisfy the schema and the columns must
say what it says; where it is none, they must be null.
"""

import argparse
import copy
import json
import pathlib
import sys

import jsonschema
import pyarrow
import pyarrow.parquet as parquet

sys.dont_write_bytecode = True
import alerts
from alerts import ROOT, alert_of, check, micros

SCHEMA = json.loads((ROOT / "docs/aggregate.schema.json").read_text())
GOLDEN = json.loads((ROOT / "protocol/tests/data/aggregate.json").read_text())
TEXTS = "tenant agent buffer lane window kind device metric unit closed revision json"
DOUBLES = "min max mean std first last p50 p95 p99"
OTHERS = {"batch": "int64", "row": "int32", "count": "int64", "late": "int64", "complete": "bool", "trusted": "bool",
          "in_doubt": "bool"}
TIMES = "window_from window_to event_time received_time"
SAME = f"window kind unit count {DOUBLES} complete late trusted closed revision"


def complaints(aggregate):
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(aggregate)]


def check_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check("the golden aggregate", not complaints(GOLDEN), complaints(GOLDEN))
    wrong = {
        "schema": 2, "window": "", "kind": "hopping", "from": "2026-11-20", "count": 0, "mean": "5.6", "std": -1,
        "p50": "5.6", "late": -1, "complete": None, "closed": "", "revision": 7,
    }
    for member, value in wrong.items():
        spoiled = copy.deepcopy(GOLDEN)
        spoiled[member] = value
        check(f"`{member}` as {value!r}", complaints(spoiled), "the schema takes it")
    for member in SCHEMA["required"]:
        spoiled = {name: value for name, value in GOLDEN.items() if name != member}
        check(f"without `{member}`", complaints(spoiled), "the schema takes it")


def check_row(row):
    """Whether it is an aggregate."""
    aggregate = alert_of(row["json"])
    name = f"row {row['row']} of batch {row['batch']}"
    if aggregate is None:
        filled = [column for column in SAME.split() if row[column] is not None]
        check(name, not filled, f"it is no aggregate, and has {filled}")
        return False
    check(name, not complaints(aggregate), f"{complaints(aggregate)}: {aggregate}")
    expected = {column: aggregate.get(column) for column in SAME.split()}
    expected["window_from"] = micros(aggregate["from"])
    expected["window_to"] = micros(aggregate["to"])
    said = {column: row[column] for column in expected}
    check(name, said == expected, f"{said} instead of {expected}")
    return True


def check_lake(lake):
    expected = dict.fromkeys(TEXTS.split(), "string") | dict.fromkeys(DOUBLES.split(), "double") | OTHERS
    expected |= dict.fromkeys(TIMES.split(), "timestamp[us, tz=UTC]")
    files = sorted((lake / "aggregates").rglob("*.parquet"))
    found, others = 0, 0
    for path in files:
        table = parquet.ParquetFile(path).read()
        kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
        check(f"columns of {path.name}", kinds == expected, f"{kinds}")
        for column in TIMES.split():
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, table.column(column).cast(pyarrow.int64()))
        for row in table.to_pylist():
            if check_row(row):
                found += 1
            else:
                others += 1
    check(str(lake), found > 0, "no aggregate in it")
    print(f"{lake}: {found} aggregates, {others} other rows in {len(files)} files")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", type=pathlib.Path, action="append", default=[])
    check_schema()
    for lake in parser.parse_args().lake:
        check_lake(lake)
    print("all is well" if alerts.failed == 0 else f"{alerts.failed} checks failed")
    return 1 if alerts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
