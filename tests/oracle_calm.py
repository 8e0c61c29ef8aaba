#!/usr/bin/env python3
"""Reference (oracle) for the preset `calm`; plain Python, one reading at a time.

  A  occupancy gap of the value              Gap 128
  C  occupancy gap of the weekly residual    Gap 64, relative to the local sparsity
  M  occupancy gap of a short moving mean    Gap 32
  R  occupancy gap of the step x - previous  Gap 32, in root mean square steps, compressed by a root
  S  stuck-at run length
  F  how far the value is from the recent mean, of what is asked for while the series is young
  E  evidence: e = (leaky sum of F^2 max(A,C,M,R)) / ((1 + K1 b) (1 + K2 q));  b fast, q slow count of alerts

Run on NAB:  oracle_calm.py --nab NAB --out DIR   then   nab_score.py --nab NAB DIR --threshold 0.5
Run on any tree of timestamp,value CSVs:  oracle_calm.py --data SRC --out DIR
"""
import argparse, csv, datetime as dt, math, os
import numpy as np

f32 = np.float32

# value gap (A)                 weekly residual (C)                short mean (M)               step (R)
DA, IA, TA = 20000, 4, 0.031
DC, IC, TC, WALK = 3050, 1, 0.88, 6
DM, IM, AM, TM = 18000, 1, 0.0595, 0.04
DR, IR, TR = 7000, 1, 0.047
LAMBDA, CAP = 0.9895, 6.0                       # evidence: leak per reading, most one reading can add
K1, TAU1, BSUP = 1.2, 185.0, 0.22               # fast brake: weight, memory, part added by a suppressed alert
K2, TAU2, QMAX = 0.33, 100000.0, 16.0           # slow brake: weight, readings to lose one alert, most it counts
COOL = 30                                       # readings after an alert without another
YOUNG, Z, AZ = 5000, 4.6, 0.002                 # young: readings, deviations asked for at first; weight of means
WEEK, NEAR = 46, 0.75                           # buckets from which C is not asked; what an alert too near counts
RETURNS = 12                                    # returns to a bucket, the first ones, of which C says nothing


class Gap:
    """Distance (in bins) from a value to the nearest occupied bin, span, and how sparse it is there."""

    def __init__(self, bins, decay, inc, walk=0, warm=100, pad=3):
        self.m, self.decay, self.inc, self.walk, self.warm, self.pad = bins, decay, inc, walk, warm, pad
        self.c = [0] * bins            # u8, saturating
        self.lo = None                 # f32
        self.w = f32(0)                # f32, total width; 0 = only one distinct value so far
        self.a, self.z = bins, -1      # first / last non-zero bin
        self.seen = self.since = 0

    def _span(self):
        occ = [j for j, v in enumerate(self.c) if v]
        self.a, self.z = (occ[0], occ[-1]) if occ else (self.m, -1)

    def _walk(self, j, step):
        """Bins to walk from j (away from the new value) to gather `walk` counts."""
        got = n = 0
        while True:
            got += self.c[j]
            n += 1
            if got >= self.walk or (j <= self.a if step < 0 else j >= self.z):
                return n
            j += step

    def step(self, value):
        """-> (d, span + pad, L); d = 0: nothing new."""
        v, m, c = f32(value), self.m, self.c
        if self.lo is None:
            self.lo = v
        if self.w == 0:
            if v == self.lo:
                self.seen += 1
                return 0, 1, 1
            d = abs(v - self.lo)
            if not np.isfinite(f32(4) * d):
                return 0, 1, 1
            first, self.w = self.lo, f32(4) * d
            self.lo = min(self.lo, v) - f32(1.5) * d
            b = min(m - 1, int((first - self.lo) / self.w * m))
            c[b] = min(255, max(1, self.seen) * self.inc)
            self.a = self.z = b
        guard = 0
        while (v < self.lo or v >= self.lo + self.w) and guard < 120:      # double the range
            off = m // 2 if v < self.lo else 0
            n = [0] * m
            for j in range(m):
                n[off + j // 2] = min(255, n[off + j // 2] + c[j])
            c[:] = n
            if v < self.lo:
                self.lo = self.lo - self.w
            self.w = self.w * f32(2)
            if self.z >= 0:
                self.a, self.z = off + self.a // 2, off + self.z // 2
            guard += 1
        b = max(0, min(m - 1, int((v - self.lo) / self.w * m)))
        out = 0, 1, 1
        if self.seen >= self.warm and self.z >= self.a and c[b] == 0:
            for d in range(1, m):
                left, right = b - d >= 0 and c[b - d] > 0, b + d < m and c[b + d] > 0
                if left or right:
                    n = 1
                    if self.walk:
                        n = min(([self._walk(b - d, -1)] if left else []) + ([self._walk(b + d, 1)] if right else []))
                    out = d, self.z - self.a + self.pad, n
                    break
        c[b] = min(255, c[b] + self.inc)
        self.a, self.z = min(self.a, b), max(self.z, b)
        self.seen += 1
        self.since += 1
        if self.since >= self.decay:                                     # forget
            self.since = 0
            for j in range(m):
                c[j] >>= 1
            self._span()
            if self.z >= self.a and self.z - self.a >= 2 and self.z - self.a + 1 <= m // 3:   # zoom in
                st = min(max((self.a + self.z + 1) // 2 - m // 4, 0), m // 2)
                c[:] = [c[st + j // 2] for j in range(m)]
                self.lo = self.lo + self.w * f32(st) / f32(m)
                self.w = self.w * f32(0.5)
                self.a, self.z = 2 * (self.a - st), 2 * (self.z - st) + 1
        return out


class Detector:
    BUCKETS, PERIOD_S = 84, 7 * 86400.0

    def __init__(self, stuck=True):
        self.A = Gap(128, DA, IA)
        self.C = Gap(64, DC, IC, walk=WALK)
        self.M = Gap(32, DM, IM)
        self.R = Gap(32, DR, IR)
        self.mean = [f32(0)] * self.BUCKETS
        self.cnt = [0] * self.BUCKETS
        self.stuck, self.prev, self.run, self.longest, self.changes, self.fired = stuck, None, 0, 0.0, 0, False
        self.short = None
        self.acc = self.b = f32(0)
        self.q = 0.0
        self.n, self.age, self.last, self.hushed, self.last_t = 0, 0, -10**9, -10**9, -math.inf
        self.mu, self.sd, self.pace = 0.0, f32(0), f32(0)
        self.bucket, self.returns = None, 0

    def farness(self, x):
        """|x - mean| in deviations, of what is asked for at this age; at most 1."""
        asked = Z * (max(0, YOUNG - self.age) / YOUNG)
        if asked == 0:
            return 1.0
        if self.age == 1:
            self.mu, off = x, 0.0
        else:
            dist, sd, w = x - self.mu, float(self.sd), max(AZ, 1.0 / self.age)
            self.mu += w * dist
            self.sd = f32(math.sqrt((1 - w) * (sd * sd + w * dist * dist)))
            off = abs(dist) / sd if sd > 0 else 0.0 if dist == 0 else math.inf
        return off / asked if off < asked else 1.0

    def stride(self, step):
        """A step in root mean square steps of this series, compressed."""
        pace, w = float(self.pace), max(AZ, 1.0 / self.age)
        self.pace = f32(math.sqrt((1 - w) * pace * pace + w * step * step))
        if pace == 0:
            return 0.0
        paces = max(-1e12, min(1e12, step / pace))
        return math.copysign(math.sqrt(1 + abs(paces)) - 1, paces)

    def step(self, t, x):
        """t: seconds, x: value -> (severity, alert). severity >= 1 on an alert."""
        self.n += 1
        self.b = f32(float(self.b) * math.exp(-1 / TAU1))
        self.q = max(0.0, self.q - 1 / TAU2)
        if not math.isfinite(x) or t < self.last_t:     # missing or late: no model update, no score
            return 0.0, False
        self.last_t = t
        self.age += 1
        d, s, _ = self.A.step(x)
        f = d / (TA * s)
        k = min(self.BUCKETS - 1, int((t % self.PERIOD_S) / self.PERIOD_S * self.BUCKETS))
        self.returns += k != self.bucket and self.cnt[k] > 0
        self.bucket = k
        if self.cnt[k] == 0:
            self.mean[k] = f32(x)
        r = x - float(self.mean[k])
        self.mean[k] = f32(self.mean[k] + max(0.2, 1.0 / (self.cnt[k] + 1)) * r)
        self.cnt[k] = min(255, self.cnt[k] + 1)
        d, _, n = self.C.step(r)
        c = 0.0 if 1 <= self.returns <= RETURNS else d / (TC * n)
        weekly, f = c > f, max(f, c)
        self.short = x if self.short is None else self.short + AM * (x - self.short)
        d, s, _ = self.M.step(self.short)
        m = d / (TM * s)
        weekly, f = weekly and m <= f, max(f, m)
        d, s, _ = self.R.step(self.stride(0.0 if self.prev is None else x - self.prev))
        r = d / (TR * s)
        weekly, f = weekly and r <= f, max(f, r)
        far = self.farness(x)
        stuck = False
        if x == self.prev:
            self.run += 1
        else:
            self.changes += self.prev is not None
            self.longest, self.run, self.fired = max(self.longest, self.run), 0, False
        self.longest *= 1 - 1 / 50000.0
        if self.stuck and self.changes >= 50 and not self.fired and self.run >= max(20.0, 4 * self.longest):
            self.fired = stuck = True
        self.prev = x
        if self.age <= 100:
            return 0.0, False
        if weekly and sum(n > 0 for n in self.cnt) >= WEEK:
            far = 1.0
        f *= far * far
        self.acc = f32(LAMBDA * float(self.acc) + min(f, CAP))
        e = float(self.acc) / ((1 + K1 * float(self.b)) * (1 + K2 * self.q)) if f > 0 else 0.0
        near = far < 1 and not stuck
        if stuck:
            e = max(e, 1.01)
        if e < 1:
            return 0.5 * e, False
        part = NEAR if near else 1.0
        if self.n - (self.hushed if near else self.last) <= COOL:
            self.b += f32(part * BSUP)
            return 0.0, False
        self.b += f32(part)
        self.q = min(QMAX, self.q + part)
        if near:
            self.hushed = self.n
            return 0.0, False
        self.last = self.n
        return e, True


def run_file(src, dst):
    det = Detector()
    os.makedirs(os.path.dirname(dst), exist_ok=True)
    with open(src, newline="") as fi, open(dst, "w") as fo:
        fo.write("timestamp,value,anomaly_score\n")
        rd = csv.reader(fi)
        next(rd)
        epoch = dt.datetime(2010, 1, 4)                                  # a Monday
        for row in rd:
            t = (dt.datetime.fromisoformat(row[0][:19]) - epoch).total_seconds()
            s, _ = det.step(t, float(row[1]))
            fo.write(f"{row[0]},{row[1]},{s / (1 + s):.6f}\n")


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--nab")
    ap.add_argument("--data")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    src = os.path.join(a.nab, "data") if a.nab else a.data
    for root, _, files in os.walk(src):
        for f in files:
            if f.endswith(".csv"):
                p = os.path.join(root, f)
                run_file(p, os.path.join(a.out, os.path.relpath(p, src)))
