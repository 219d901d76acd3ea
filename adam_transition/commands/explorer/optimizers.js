"use strict";
// The optimisers of the page, named as in optimizers/registry.py: those whose drift in cyclic order is
// exact because their state repeats with the epoch. p and q are 1 − β of the two axes. There is no
// bias correction, and ε = 0. tests/test_explorer.py compares each of them with the library.
//
// drift: D per epoch in cyclic order. step: one step of many runs, of size eta, on the component of a
// slope. Each has a loop of its own, which a browser compiles better than one that calls any of them.

/** The orbit of an average with 1 − β = p of values that repeat: what it is after each of them. */
function orbit(values, p) {
  const found = new Float64Array(values.length);
  let average = 0;
  for (let pass = 0; pass < 2; pass++) {
    for (let j = 0; j < values.length; j++) {
      average = (1 - p) * average + p * values[j];
      found[j] = average;
    }
    // an epoch multiplies the start by β^n: from 0 it ends at 1 − β^n times the orbit
    if (pass === 0) average /= oneMinusPower(p, values.length);
  }
  return found;
}

/** The orbit of the average of two values: `first` once per epoch, `other` n − 1 times. */
function pulses(n, first, other, p) {
  const above = orbit(Float64Array.from({ length: n }, (_, j) => (j === 0 ? first - other : 0)), p);
  return above.map((one) => other + one);
}

const averageOfGradients = ({ n, large }, p) => pulses(n, large, -1, p);
const averageOfSquares = ({ n, large }, q) => pulses(n, large * large, 1, q);
const slopeAt = ({ large }, j) => (j === 0 ? large : -1);
const minusSum = (directions) => directions.reduce((sum, one) => sum - one, 0);

/** The slope above x = −1, proportional to x + 2 below. */
const gradient = (slope, x) => slope * Math.min(1, x + 2);
/** As in the library, a rule does not move where v is 0. */
const ratio = (m, v) => (v > 0 ? m / Math.sqrt(v) : 0);

const OPTIMIZERS = {
  adam: {
    name: "Adam",
    axes: ["β1", "β2"],
    boundsSteps: true,
    exactInRandomOrders: true,
    drift(problem, p, q) {
      const v = averageOfSquares(problem, q);
      return minusSum(averageOfGradients(problem, p).map((m, j) => m / Math.sqrt(v[j])));
    },
    step({ x, m, v }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        m[i] += p[i] * (g - m[i]);
        v[i] += q[i] * (g * g - v[i]);
        x[i] -= eta * ratio(m[i], v[i]);
      }
    },
  },
  nadam: {
    name: "NAdam",
    axes: ["β1", "β2"],
    boundsSteps: true,
    drift(problem, p, q) {
      const v = averageOfSquares(problem, q);
      const ahead = averageOfGradients(problem, p).map((m, j) => (1 - p) * m + p * slopeAt(problem, j));
      return minusSum(ahead.map((m, j) => m / Math.sqrt(v[j])));
    },
    step({ x, m, v }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        m[i] += p[i] * (g - m[i]);
        v[i] += q[i] * (g * g - v[i]);
        x[i] -= eta * ratio(m[i] + p[i] * (g - m[i]), v[i]);
      }
    },
  },
  amsgrad: {
    name: "AMSGrad",
    axes: ["β1", "β2"],
    boundsSteps: true,
    isNeverPositive: true,
    // m sums to the gradients' sum over an epoch, and v is largest right after the large slope
    drift(problem, p, q) {
      return (problem.n - 1 - problem.large) / Math.sqrt(averageOfSquares(problem, q)[0]);
    },
    step({ x, m, v, largest }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        m[i] += p[i] * (g - m[i]);
        v[i] += q[i] * (g * g - v[i]);
        largest[i] = Math.max(largest[i], v[i]);
        x[i] -= eta * ratio(m[i], largest[i]);
      }
    },
  },
  adabelief: {
    name: "AdaBelief",
    axes: ["β1", "β2"],
    // NaN at β1 = 0, where v is 0
    drift(problem, p, q) {
      const { n, large } = problem;
      // the distances of m from −1 keep their digits where they are small
      const above = pulses(n, large + 1, 0, p);
      const errors = above.map((one, j) => (j === 0 ? (1 - p) * (large + 1 - above[n - 1]) : one));
      const v = orbit(errors.map((one) => one * one), q);
      return minusSum(above.map((one, j) => (one - 1) / Math.sqrt(v[j])));
    },
    step({ x, m, v }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        const error = (1 - p[i]) * (g - m[i]); // g − m after the step of m
        m[i] += p[i] * (g - m[i]);
        v[i] += q[i] * (error * error - v[i]);
        x[i] -= eta * ratio(m[i], v[i]);
      }
    },
  },
  lion: {
    name: "Lion",
    axes: ["β1", "β2"],
    isInteger: true,
    drift(problem, p, q) {
      const m = averageOfGradients(problem, q), before = (j) => m[(j || problem.n) - 1];
      return minusSum(m.map((_, j) => Math.sign((1 - p) * before(j) + p * slopeAt(problem, j))));
    },
    step({ x, m }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        x[i] -= eta * Math.sign(m[i] + p[i] * (g - m[i]));
        m[i] += q[i] * (g - m[i]);
      }
    },
  },
  signum: {
    name: "Signum",
    axes: ["β", null], // null: the axis has no effect
    isInteger: true,
    drift: (problem, p) => minusSum(averageOfGradients(problem, p).map(Math.sign)),
    step({ x, m }, p, q, slope, eta) {
      for (let i = 0; i < x.length; i++) {
        const g = gradient(slope, x[i]);
        m[i] += p[i] * (g - m[i]);
        x[i] -= eta * Math.sign(m[i]);
      }
    },
  },
};

/** Whether D is known exactly: in cyclic order it is for all, in the random orders for Adam. */
const isExact = (rule, sampling) => sampling === "cyclic" || rule.exactInRandomOrders === true;
