"use strict";
// An optimiser on the counterexample: its stationary drift, its boundary, its runs; `rule` is one of
// optimizers.js. tests/test_explorer.py compares each with the library. p = 1 − β1, q = 1 − β2.

/** The counterexample in units of a: one slope `large` = c/a, the others −1; its constants. */
function counterexample(n, a) {
  const c = 1 + (n - 1) * a;
  return { n, a, large: c / a, smoothness: c, d1: n * n * (c * c + (n - 1) * a * a) };
}

/** 1 − β^k from 1 − β. */
const oneMinusPower = (p, k) => -Math.expm1(k * Math.log1p(-p));

/**
 * D per epoch where it is exact; see theory/stationary_drift.py and theory/random_sampling.py for the
 * derivation in random orders, which is Adam's.
 */
function stationaryDrift(problem, rule, sampling, p, q) {
  if (!isExact(rule, sampling)) throw new Error(`${rule.name} has no exact drift: ${sampling}`);
  if (sampling === "cyclic") return rule.drift(problem, p, q);
  const histories = sampling === "with_replacement" ? independentDraws : shuffledEpochs;
  return transformedDrift(problem, histories(problem), p, q);
}

// An order of the draws: its states, and one step of F and H, the means of e^{−sv} and m e^{−sv} in
// each state. `rare` and `usual` are e^{−qsg²} of the two slopes.

function independentDraws({ n, large }) {
  return {
    count: 1,
    start: (p) => ({ f: Float64Array.of(1), h: Float64Array.of((large - (n - 1)) / n) }),
    advance({ f, h }, p, rare, usual) {
      const one = rare / n, other = usual * (n - 1) / n;
      h[0] = p * f[0] * (one * large - other) + (1 - p) * h[0] * (one + other);
      f[0] *= one + other;
    },
    total: ({ h }) => n * h[0],
  };
}

// State i: i components drawn in this epoch, without the large slope; state n + 1 + i: with it.
function shuffledEpochs({ n, large }) {
  const seen = n + 1;
  function advance({ f, h }, p, rare, usual) {
    for (let i = n; i > 0; i--) {
      const left = n - i + 1, before = i - 1, after = seen + before;
      const drawn = rare / left, passed = usual * (n - i) / left;
      h[seen + i] =
        usual * ((1 - p) * h[after] - p * f[after]) +
        drawn * ((1 - p) * h[before] + p * large * f[before]);
      f[seen + i] = usual * f[after] + drawn * f[before];
      h[i] = passed * ((1 - p) * h[before] - p * f[before]);
      f[i] = passed * f[before];
    }
    f[0] = f[seen + n]; // start of the next epoch: "all drawn" becomes "none drawn"
    h[0] = h[seen + n];
  }
  function start(p) {
    const state = { f: new Float64Array(2 * n + 2), h: new Float64Array(2 * n + 2) };
    let mean = 0; // of m at the start of an epoch: first that of one epoch from 0
    for (let pass = 0; pass < 2; pass++) {
      state.h.fill(0);
      for (let step = 0; step < n; step++) {
        state.f[0] = 1;
        state.h[0] = mean;
        advance(state, p, 1, 1);
      }
      if (pass === 0) mean = state.h[seen + n] / oneMinusPower(p, n);
    }
    return state;
  }
  function total({ h }) {
    let sum = 0;
    for (let i = 1; i < h.length; i++) sum += h[i];
    return sum;
  }
  return { count: 2 * n + 2, start, advance, total };
}

const SPACING = 0.25, CUT = 1e-32, DECAYED = 60;

function transformedDrift({ n, large }, histories, p, q) {
  const first = Math.log(CUT / ((large * large + n - 1) / n));
  const length = Math.log(DECAYED) - first;
  const step = Math.min(-Math.log1p(-q), length);
  const offsets = Math.ceil(step / SPACING), steps = Math.ceil(length / step);
  const start = histories.start(p);
  let integral = 0;
  for (let offset = 0; offset < offsets; offset++) {
    const state = { f: start.f.slice(), h: start.h.slice() };
    for (let k = 0; k < steps; k++) {
      const u = first + (k + offset / offsets) * step, t = q * Math.exp(u);
      histories.advance(state, p, Math.exp(-t * large * large), Math.exp(-t));
      integral += Math.exp(u / 2) * histories.total(state);
    }
  }
  return -step / offsets * integral / Math.sqrt(Math.PI);
}

/** The smallest 1 − β2 at which a drift is computed. */
const LEAST_Q = { cyclic: 1e-9, random_shuffling: 1e-3, with_replacement: 2e-4 };

/** The zero of a function between two points of opposite sign, by the Illinois method. */
function zeroBetween(f, left, right, atLeft, atRight) {
  let last = left, kept = "";
  for (let k = 0; k < 50; k++) {
    const middle = (left * atRight - right * atLeft) / (atRight - atLeft), value = f(middle);
    if (value === 0 || Math.abs(middle - last) < 1e-9) return middle;
    last = middle;
    if (value > 0 === atRight > 0) {
      [right, atRight] = [middle, value];
      if (kept === "left") atLeft /= 2;
      kept = "left";
    } else {
      [left, atLeft] = [middle, value];
      if (kept === "right") atRight /= 2;
      kept = "right";
    }
  }
  return last;
}

/** The end of f > 0 between two points, by bisection: for steps, which may have values of 0. */
function stepBetween(f, left, right, isPositiveAtRight) {
  for (let k = 0; k < 36; k++) {
    const middle = (left + right) / 2;
    if (f(middle) > 0 === isPositiveAtRight) right = middle;
    else left = middle;
  }
  return (left + right) / 2;
}

/** Points of a scan; D in steps is cheap, and its intervals can be narrower. */
const POINTS = { steps: 640, cyclic: 160, random: 44 };

/**
 * Where a drift is > 0: intervals [low, high] of q = 1 − β, from 1 downward. All sign changes between
 * two points of a scan that is even in log(β/(1 − β)) are seen and bisected.
 */
function positiveIntervals(drift, least, points, isInteger) {
  const ends = [];
  const low = -12, high = Math.log1p(-least) - Math.log(least);
  const qOf = (u) => 1 / (1 + Math.exp(u)), at = (u) => drift(qOf(u));
  let u = low, value = at(low);
  if (value > 0) ends.push(1);
  for (let i = 1; i < points; i++) {
    const next = low + (high - low) * i / (points - 1), there = at(next);
    if (there > 0 !== value > 0) {
      ends.push(qOf(isInteger ?
        stepBetween(at, u, next, there > 0) : zeroBetween(at, u, next, value, there)));
    }
    [u, value] = [next, there];
  }
  if (value > 0) ends.push(0);
  return Array.from({ length: ends.length / 2 }, (_, i) => [ends[2 * i], ends[2 * i + 1]]);
}

/** Where D > 0 at one β1: intervals of 1 − β2. */
function divergence(problem, rule, sampling, p) {
  const drift = (q) => stationaryDrift(problem, rule, sampling, p, q);
  if (rule.axes[1] === null) return drift(1) > 0 ? [[1, 0]] : [];
  let least = LEAST_Q[sampling];
  if (sampling === "cyclic") {
    return positiveIntervals(drift, least, rule.isInteger ? POINTS.steps : POINTS.cyclic, rule.isInteger);
  }
  // close to 1 the cost is 1/(1 − β2): go no farther than needed
  const cyclic = divergence(problem, rule, "cyclic", p);
  const wanted = (cyclic.length ? cyclic[cyclic.length - 1][1] : 0.16) / 16;
  let q = Math.max(least, wanted);
  while (q > least && drift(q) > 0) q = Math.max(least, q / 16);
  return positiveIntervals(drift, q, POINTS.random, false);
}

/** Where D > 0 along the first axis of a rule that has only one: intervals of 1 − β. */
function divergenceOfOnly(problem, rule) {
  const drift = (p) => stationaryDrift(problem, rule, "cyclic", p, 1);
  return positiveIntervals(drift, LEAST_Q.cyclic, POINTS.steps, rule.isInteger);
}

/** A stream of uniform numbers in [0, 1). */
function uniforms(seed) {
  let state = (seed * 2654435769 + 1) >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 4294967296;
  };
}

/** Whether the large slope is drawn, for each step. */
function draws(sampling, n, seed) {
  const uniform = uniforms(seed);
  let step = 0, place = 0;
  for (let i = 0; i < 16; i++) uniform();
  return () => {
    const position = step++ % n;
    if (sampling === "cyclic") return position === 0;
    if (sampling === "with_replacement") return uniform() * n < 1;
    if (position === 0) place = Math.floor(uniform() * n);
    return position === place;
  };
}

/** Many runs at once, x from x0, steps η0/√k; all share the same draws. */
class Runs {
  constructor(problem, rule, sampling, p, q, { x0 = 1, eta0 = 0.1, seed = 1 } = {}) {
    const next = draws(sampling, problem.n, seed), zeros = () => new Float64Array(p.length);
    Object.assign(this, { problem, rule, p, q, eta0, step: 0, next, x: zeros().fill(x0) });
    this.state = { x: this.x, m: zeros(), v: zeros(), largest: zeros() };
  }

  run(count) {
    const { rule, state, p, q, problem } = this;
    for (let k = 0; k < count; k++) {
      const slope = this.next() ? problem.smoothness : -problem.a;
      rule.step(state, p, q, slope, this.eta0 / Math.sqrt(++this.step));
    }
  }
}
