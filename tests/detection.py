#!/usr/bin/env python3
"""Holds `tributary-agent detect` against the oracles, row by row, and scores it.

    python3 -m pip install numpy
    cargo build --release
    python3 tests/detection.py target/release/tributary-agent [--quality DIR] [--seeds N ...]

DIR holds the reference detector, the labelled series and the scorers (`../shared/quality` beside the
project where it is left out); without it nothing is run. Presets `sensitive` and `calm` must agree
with their oracles to 1e-4 on every row of every file; then each preset's alerts on healthy series,
faults found and NAB score are held against what docs/detection.md says. Exit code 0 only if every
check passed.

    python3 tests/detection.py --golden agent/tests/data/detect.csv

writes what the oracles make of the series that the agent's own test makes: rows that score.
"""

import argparse
import csv
import importlib.util
import math
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE_S = 1_800
TOLERANCE = 1e-4
# Alerts per 10,000 rows of healthy series, at most, over the seeds.
QUIET = {"sensitive": 4.8, "balanced": 2.5, "quiet": 1.0, "calm": 0.95}
# The same by the age of a series, from and to so many readings: a detector is loudest while it is
# young.
AGES = ((200, 600), (600, 2_000), (2_000, 10_000))
YOUNG = {
    "sensitive": (60.0, 18.0, 5.2),
    "balanced": (60.0, 18.0, 5.0),
    "quiet": (11.0, 4.0, 1.3),
    "calm": (9.0, 3.0, 2.3),
}
# Shares found within 30 rows, at least, over the seeds.
FOUND = {
    "sensitive": {
        "spike8": 0.95,
        "level3": 0.95,
        "dropout_zero": 0.95,
        "stuck": 0.95,
        "noise_x4": 0.90,
    },
    "calm": {
        "spike8": 0.95,
        "level3": 0.95,
        "dropout_zero": 0.95,
        "stuck": 0.95,
        "noise_x4": 0.95,
    },
}
# NAB, development half, at threshold 0.5: standard, low FP, low FN, at least.
NAB = {"sensitive": (72.0, 64.0, 76.5), "calm": (72.0, 70.5, 74.2)}
SEEDS = (1, 2, 3)

passed = failed = 0


def check(what, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else ': ' + str(why)}", flush=True)


def run(*command):
    command = [str(part) for part in command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {ended.stderr.strip()[-500:]}")
    return ended.stdout


def scores(path):
    with open(path, newline="", encoding="utf-8") as opened:
        return [float(row["anomaly_score"]) for row in csv.DictReader(opened)]


def agree(what, ours, oracle):
    rows, worst, where = 0, 0.0, "nowhere"
    files = sorted(oracle.rglob("*.csv"))
    for path in files:
        place = path.relative_to(oracle)
        theirs, mine = scores(path), scores(ours / place)
        if len(theirs) != len(mine):
            check(f"{what}: rows of {place}", False, f"{len(mine)} of {len(theirs)}")
            return
        rows += len(theirs)
        for line, (a, b) in enumerate(zip(mine, theirs), 2):
            if abs(a - b) > worst:
                worst, where = abs(a - b), f"{place}:{line}"
    good = files and worst <= TOLERANCE
    check(f"{what}: {rows:,} rows of {len(files)} files agree", good, f"{worst} at {where}")


def score_nab(preset, quality, ours):
    nab = quality / "nab"
    said = run(sys.executable, quality / "nab_score.py", "--nab", nab, "--set", "dev",
               "--threshold", "0.5", ours)
    fixed = next(line for line in said.splitlines() if "dev@fixed" in line)
    figures = tuple(float(text) for text in fixed.split("dev@fixed")[1].split()[:3])
    least = NAB.get(preset, (0, 0, 0))
    good = all(figure >= wanted for figure, wanted in zip(figures, least))
    check(f"{preset}: NAB {figures} of {least}", good, "below")


def by_age(folders):
    """Alerts per 10,000 rows of healthy series, of each of AGES."""
    alerts, rows = [0] * len(AGES), 0
    for folder in folders:
        for path in (folder / "quiet").glob("*.csv"):
            judged, rows = scores(path), rows + 1
            for age, (first, end) in enumerate(AGES):
                alerts[age] += sum(score >= 0.5 for score in judged[first:end])
    return [1e4 * count / (rows * (end - first)) for count, (first, end) in zip(alerts, AGES)]


def score_quiet(agent, preset, quality, data, folder):
    alerts, found, planted = [], {}, {}
    for seed, tree in data.items():
        ours = folder / f"{preset}-{seed}"
        run(agent, "detect", "--input", tree, "--output", ours, "--preset", preset)
        said = run(sys.executable, quality / "quiet_suite.py", "score", "--data", tree,
                   "--results", ours)
        alerts.append(float(re.search(r"mean ([0-9.]+)", said).group(1)))
        for fault, hits, of in re.findall(r"^(\w+)\s+found <=30 rows (\d+)/(\d+)", said, re.M):
            found[fault] = found.get(fault, 0) + int(hits)
            planted[fault] = planted.get(fault, 0) + int(of)
    mean = sum(alerts) / len(alerts)
    check(f"{preset}: {mean:.2f} alerts per 10,000 quiet rows", mean <= QUIET[preset], alerts)
    young = by_age([folder / f"{preset}-{seed}" for seed in data])
    said = ", ".join(f"{rate:.1f} from {age[0]:,}" for rate, age in zip(young, AGES))
    most = YOUNG[preset]
    good = all(rate <= wanted for rate, wanted in zip(young, most))
    check(f"{preset}: alerts per 10,000 quiet rows: {said}", good, f"above {most}")
    for fault, least in FOUND.get(preset, {}).items():
        hits, of = found.get(fault, 0), planted.get(fault, 0)
        check(f"{preset}: {fault} found {hits}/{of}", of and hits / of >= least, f"below {least}")


def golden_series():
    """(seconds, value), the same as `agent/tests/detect.rs` makes: noise on a daily triangle, with
    a gap, a step back in time, and five faults."""
    state, rows, held = 1, [], 0.0
    for i in range(30_000):
        noise = -2.0
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            noise += (state >> 33) / 2.0**31
        daily = abs(i % 1440 - 720) / 240.0
        value = 20.0 + daily + noise
        if 12_000 <= i < 12_500:
            value += 2.0
        elif 18_000 <= i < 18_200:
            value += 4.0 * noise
        elif 21_000 <= i < 21_005:
            value = 0.0
        elif i == 8_000:
            value += 5.0
        elif i == 5_000:
            value = math.nan
        held = value if i == 15_000 else held
        value = held if 15_000 <= i < 15_200 else value
        rows.append((60 * i - (600 if i == 5_001 else 0), value))
    return rows


def write_golden(quality, path):
    scored = []
    for place in (quality / "reference_detector.py", HERE / "oracle_calm.py"):
        spec = importlib.util.spec_from_file_location(place.stem, place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        detector = module.Detector()
        judged = (detector.step(float(time), value)[0] for time, value in golden_series())
        scored.append([score / (1 + score) for score in judged])
    with open(path, "w", encoding="utf-8") as out:
        out.write("row,sensitive,calm\n")
        for row, (sensitive, calm) in enumerate(zip(*scored)):
            if sensitive or calm:
                out.write(f"{row},{sensitive:.6f},{calm:.6f}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("agent", type=pathlib.Path, nargs="?")
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--quality", type=pathlib.Path, default=HERE.parent.parent / "shared/quality")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    quality = arguments.quality
    if arguments.golden:
        write_golden(quality, arguments.golden)
        return 0
    if not arguments.agent:
        parser.error("which agent?")
    agent = arguments.agent.resolve()
    if not (quality / "reference_detector.py").exists():
        print(f"{quality}: no reference detector there: nothing was compared")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        data = {}
        for seed in arguments.seeds:
            data[seed] = folder / f"data-{seed}"
            run(sys.executable, quality / "quiet_suite.py", "make", "--out", data[seed],
                "--seed", seed)
        first = data[arguments.seeds[0]]
        oracles = {
            "sensitive": quality / "reference_detector.py",
            "calm": HERE / "oracle_calm.py",
        }
        series = quality / "nab/data"
        for preset in QUIET:
            ours = folder / f"nab-{preset}"
            run(agent, "detect", "--input", series, "--output", ours, "--preset", preset)
            score_nab(preset, quality, ours)
            score_quiet(agent, preset, quality, data, folder)
            if preset in oracles:
                theirs = folder / f"oracle-{preset}"
                run(sys.executable, oracles[preset], "--nab", quality / "nab", "--out", theirs)
                agree(f"{preset}, NAB", ours, theirs)
                theirs = folder / f"oracle-quiet-{preset}"
                run(sys.executable, oracles[preset], "--data", first, "--out", theirs)
                agree(f"{preset}, quiet", folder / f"{preset}-{arguments.seeds[0]}", theirs)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
