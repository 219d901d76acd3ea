"use strict";
// The page around mathematics.js and optimizers.js: controls, the plane, and the (β1, β2) under the
// pointer. Long work is cut into slices between which the browser draws; changing a control restarts it.

const COUNTS = [3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 100];
const SIDE = 96; // cells per axis
const COLUMNS = 128; // number of β1 at which the boundary is computed
const HALVINGS = 5; // of a column in which the number of intervals changes: to a tenth of a pixel
const STEPS = 50000;
const LAST_BETA1 = 0.995;
const DECADES = 3; // of 1 − β2 on the logarithmic axis
const PLOT = { left: 56, top: 10, width: 410, height: 430 };
const RANGE = { low: 1e-4, high: 1e2 }; // distances at the ends of the colour scale

const element = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

let question; // the settings shown: rule, n, a, sampling, axis
let work; // the results for them: the boundary by columns, the runs
let place = { beta1: 0.3, beta2: 0.3 };

// ---- axes: fractions of the plot's width and height

const betaOfX = (x) => LAST_BETA1 * x;
const xOfBeta = (beta1) => beta1 / LAST_BETA1;
const qOfY = (y) => (question.axis === "log" ? 10 ** (-DECADES * y) : 1 - y * LAST_BETA1);
const yOfQ = (q) =>
  question.axis === "log" ? -Math.log10(Math.max(q, 1e-12)) / DECADES : (1 - q) / LAST_BETA1;
const pixel = (x, y) => [PLOT.left + x * PLOT.width, PLOT.top + (1 - y) * PLOT.height];

// ---- the question, kept in the address so that it can be shared

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const optimizer = given.get("optimizer");
  element("optimizer").value = Object.hasOwn(OPTIMIZERS, optimizer) ? optimizer : "adam";
  const n = Number(given.get("n")) || 20;
  const nearest = COUNTS.reduce((best, one, i) =>
    Math.abs(one - n) < Math.abs(COUNTS[best] - n) ? i : best, 0);
  element("n").value = nearest;
  const a = Number(given.get("a"));
  element("paper-a").checked = !(a > 0);
  if (a > 0) element("a").value = Math.log10(a);
  for (const [name, fallback] of [["sampling", "cyclic"], ["axis", "linear"]]) {
    const wanted = document.querySelector(`input[name=${name}][value="${given.get(name)}"]`);
    (wanted || document.querySelector(`input[name=${name}][value=${fallback}]`)).checked = true;
  }
  for (const name of ["beta1", "beta2"]) {
    const value = Number(given.get(name));
    if (given.has(name) && value >= 0 && value < 1) place[name] = value;
  }
}

function writeAddress() {
  const { n, a, sampling, axis } = question, optimizer = element("optimizer").value;
  const kept = { optimizer, n, sampling, axis, beta1: place.beta1.toFixed(4), beta2: place.beta2.toFixed(6) };
  if (!element("paper-a").checked) kept.a = a.toPrecision(4);
  try {
    history.replaceState(null, "", "#" + new URLSearchParams(kept));
  } catch (error) { /* some browsers forbid it for files */ }
}

function ask() {
  const n = COUNTS[Number(element("n").value)];
  if (element("paper-a").checked) element("a").value = Math.log10(1 / (n - 1) ** 2);
  element("a").disabled = element("paper-a").checked;
  const a = element("paper-a").checked ? 1 / (n - 1) ** 2 : 10 ** Number(element("a").value);
  const rule = OPTIMIZERS[element("optimizer").value];
  question = { rule, n, a, sampling: chosen("sampling"), axis: chosen("axis") };
  const problem = counterexample(n, a);
  element("n-shown").textContent = n;
  element("a-shown").textContent = a.toPrecision(3);
  element("smoothness").textContent = problem.smoothness.toPrecision(4);
  element("d1").textContent = problem.d1.toPrecision(5);
  element("d1-ratio").textContent = (problem.d1 / (2 * n * n)).toPrecision(4);
  explain();
  begin(problem);
  read();
}

// ---- the texts that depend on the optimiser

const isDrawn = () => isExact(question.rule, question.sampling) && !question.rule.isNeverPositive;

function explain() {
  const { rule, sampling } = question, { name } = rule, [first, second] = rule.axes;
  const place = second ? `(${first}, ${second})` : first;
  document.title = `Explorer: the phase transition of ${name}`;
  element("question").textContent = `For which ${place} does ${name} converge on the counterexample?`;
  for (const one of document.querySelectorAll(".optimizer")) one.textContent = name;
  for (const one of document.querySelectorAll(".place")) one.textContent = place;
  element("beta1-name").textContent = first;
  element("where").textContent = second ? `at this ${first} diverges for` : "diverges for";
  element("axis").disabled = second === null;
  element("rule").textContent = aboutDrift(rule, sampling);
  element("bounded").textContent =
    rule.boundsSteps ? "The dashed line is β1 = √β2; above it single steps are bounded." : "";
  element("plane").setAttribute("aria-label",
    `Distance to the minimiser over the (β1, β2) plane${isDrawn() ? ", and the boundary of divergence" : ""}`);
}

function aboutDrift(rule, sampling) {
  if (rule.isNeverPositive) {
    return `The slopes sum to a positive number, so the stationary drift D per epoch of ${rule.name} is negative ` +
      "for every β1 and β2 in every order: it converges, however slowly, and there is no boundary.";
  }
  if (!isExact(rule, sampling)) {
    return `${rule.name} diverges where its stationary drift D per epoch is positive. D is known ` +
      "exactly only in cyclic order, so this picture shows no boundary.";
  }
  if (rule.isInteger) {
    return "The white line is the boundary of D > 0, computed exactly from the stationary drift D per epoch, " +
      `an integer for steps of ±1. ${rule.name} diverges where D > 0, converges where D < 0, however slowly, ` +
      "and does neither where D = 0.";
  }
  return "The white line is the boundary D = 0, computed exactly from the stationary drift D per epoch. " +
    `${rule.name} diverges where D > 0; elsewhere it converges, however slowly.`;
}

// ---- the work

function begin(problem) {
  const cells = SIDE * SIDE, p = new Float64Array(cells), q = new Float64Array(cells);
  for (let i = 0; i < cells; i++) {
    p[i] = 1 - betaOfX((i % SIDE + 0.5) / SIDE);
    q[i] = qOfY((Math.floor(i / SIDE) + 0.5) / SIDE);
  }
  const runs = new Runs(problem, question.rule, question.sampling, p, q);
  const columnsLeft = isDrawn() ? COLUMNS : 0;
  const mine = (work = { problem, runs, columns: [], columnsLeft, picture: null, stepsAtOnce: 40 });
  const slice = () => {
    if (work !== mine) return;
    const started = performance.now();
    if (mine.columnsLeft > 0) {
      addColumn(mine.columns, betaOfX((COLUMNS - mine.columnsLeft + 0.5) / COLUMNS));
      mine.columnsLeft--;
    } else {
      runs.run(Math.min(mine.stepsAtOnce, STEPS - runs.step));
      const spent = performance.now() - started; // about 15 ms of every slice
      mine.stepsAtOnce = Math.max(10, Math.min(400, Math.round(mine.stepsAtOnce * (spent > 15 ? 0.8 : 1.25))));
    }
    const now = performance.now();
    const done = runs.step >= STEPS;
    if (done || !mine.drawn || now - mine.drawn > 80) {
      mine.picture = paint(runs);
      mine.drawn = now;
      draw();
    }
    if (!done) setTimeout(slice, 0);
  };
  slice();
}

function columnAt(beta1) {
  return { beta1, intervals: divergence(work.problem, question.rule, question.sampling, 1 - beta1) };
}

/** Adds a column and, if its number of intervals is another than before, two close to the change. */
function addColumn(columns, beta1) {
  const right = columnAt(beta1), before = columns.at(-1);
  if (before && before.intervals.length !== right.intervals.length) {
    let low = before, high = right;
    for (let k = 0; k < HALVINGS; k++) {
      const middle = columnAt((low.beta1 + high.beta1) / 2);
      if (middle.intervals.length === before.intervals.length) low = middle;
      else high = middle;
    }
    columns.push(low, high);
  }
  columns.push(right);
}

// ---- drawing

function colour(gap) {
  const scale = Math.log(gap / RANGE.low) / Math.log(RANGE.high / RANGE.low);
  const at = Number.isNaN(scale) ? 255 : Math.max(0, Math.min(255, Math.round(255 * scale)));
  return PALETTE[at];
}

function paint(runs) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    const row = SIDE - 1 - Math.floor(i / SIDE);
    image.data.set([...colour(Math.abs(runs.x[i] + 2)), 255], 4 * (row * SIDE + i % SIDE));
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function sharp(canvas) {
  const ratio = window.devicePixelRatio || 1;
  if (!canvas.dataset.width) [canvas.dataset.width, canvas.dataset.height] = [canvas.width, canvas.height];
  const [width, height] = [Number(canvas.dataset.width), Number(canvas.dataset.height)];
  canvas.style.width = `${width}px`; // the style of canvas reduces it on a narrow page
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "13px system-ui, sans-serif";
  context.lineJoin = "round";
  return context;
}

function draw() {
  const context = sharp(element("plane"));
  const { left, top, width, height } = PLOT;
  context.imageSmoothingEnabled = false;
  if (work.picture) context.drawImage(work.picture, left, top, width, height);
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  if (question.rule.boundsSteps) stroke(context, squareRoot(), "#000", 1.2, [5, 4]);
  context.lineCap = "round"; // joins the pieces
  for (const [colour, line] of [["#000", 4.5], ["#fff", 2.5]]) {
    for (const piece of boundaryPieces()) stroke(context, piece, colour, line, []);
  }
  context.lineCap = "butt";
  const [x, y] = pixel(xOfBeta(place.beta1), yOfQ(1 - place.beta2));
  for (const [colour, line] of [["#fff", 3], ["#000", 1.2]]) {
    stroke(context, [[x - 8, y], [x + 8, y]], colour, line, []);
    stroke(context, [[x, y - 8], [x, y + 8]], colour, line, []);
  }
  context.restore();
  axes(context);
  bar(context);
  const percent = Math.round(100 * (1 - work.columnsLeft / COLUMNS));
  const simulated = `Simulated: ${work.runs.step} of ${STEPS} steps.`;
  element("progress").textContent =
    percent < 100 ? `Boundary: ${percent} %.` : isDrawn() ? `Boundary done. ${simulated}` : simulated;
}

function stroke(context, points, colour, width, dash) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.stroke();
}

const squareRoot = () => Array.from({ length: 201 }, (_, i) => {
  const beta1 = LAST_BETA1 * i / 200;
  return pixel(xOfBeta(beta1), yOfQ(1 - beta1 * beta1));
});

/**
 * The edges of the intervals, joined from column to column while their number stays the same. Where it
 * changes, vertical lines close the region.
 */
function boundaryPieces() {
  const pieces = [];
  for (let i = 1; i < work.columns.length; i++) {
    const left = work.columns[i - 1], right = work.columns[i];
    const [here, there] = [left, right].map(({ intervals }) => intervals.flat());
    const x = [left, right].map(({ beta1 }) => xOfBeta(beta1));
    if (here.length === there.length) {
      here.forEach((q, j) => {
        const isAxis = q === there[j] && (q === 0 || q === 1);
        if (!isAxis) pieces.push([pixel(x[0], yOfQ(q)), pixel(x[1], yOfQ(there[j]))]);
      });
    } else {
      const middle = (x[0] + x[1]) / 2;
      // between an odd number of edges D > 0 on one side only
      const edges = [...here, ...there].sort((one, other) => other - one);
      for (let j = 0; j < edges.length; j += 2) {
        pieces.push([pixel(middle, yOfQ(edges[j])), pixel(middle, yOfQ(edges[j + 1]))]);
      }
    }
  }
  return pieces;
}

function axes(context) {
  const { left, top, width, height } = PLOT;
  context.strokeStyle = context.fillStyle = "#000";
  context.lineWidth = 1;
  context.setLineDash([]);
  context.strokeRect(left, top, width, height);
  context.textAlign = "center";
  for (const beta1 of [0, 0.2, 0.4, 0.6, 0.8, 0.95]) {
    const [x] = pixel(xOfBeta(beta1), 0);
    context.fillRect(x, top + height, 1, 5);
    context.fillText(beta1, x, top + height + 19);
  }
  const [first, second] = question.rule.axes, logarithmic = question.axis === "log";
  context.fillText(first, left + width / 2, top + height + 38);
  context.textAlign = "right";
  const ticks = logarithmic ? [1, 0.1, 0.01, 0.001] : [0, 0.2, 0.4, 0.6, 0.8, 0.95];
  for (const one of second ? ticks : []) {
    const [, y] = pixel(0, yOfQ(logarithmic ? one : 1 - one));
    context.fillRect(left - 5, y, 5, 1);
    context.fillText(one, left - 8, y + 4);
  }
  context.save();
  context.translate(14, top + height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  const name = second || `no second parameter: ${question.rule.name} is the same along this axis`;
  context.fillText(second && logarithmic ? `1 − ${name}` : name, 0, 0);
  context.restore();
}

function bar(context) {
  const left = PLOT.left + PLOT.width + 16, { top, height } = PLOT;
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${PALETTE[i]})`;
    context.fillRect(left, top + height * (255 - i) / 256, 12, height / 256 + 1);
  }
  context.fillStyle = "#000";
  context.textAlign = "left";
  for (let power = -4; power <= 2; power++) {
    context.fillText(power < 0 ? `1e−${-power}` : `1e${power}`, left + 16, top + height * (2 - power) / 6 + (power === 2 ? 10 : power === -4 ? 0 : 4));
  }
  context.save();
  context.translate(left + 68, top + height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText("|x − x*|", 0, 0);
  context.restore();
}

// ---- the (β1, β2) under the pointer

function read() {
  const { beta1, beta2 } = place, p = 1 - beta1, q = 1 - beta2;
  const { rule, sampling } = question, problem = work.problem;
  const isKnown = isExact(rule, sampling) && q >= LEAST_Q[sampling];
  const drift = isKnown ? stationaryDrift(problem, rule, sampling, p, q) : NaN;
  element("beta1").textContent = beta1.toFixed(4);
  element("beta2").textContent =
    rule.axes[1] ? beta2.toFixed(Math.max(4, Math.ceil(2 - Math.log10(q)))) : "has no effect";
  element("drift").textContent = isKnown ? driftText(drift) : unknownDriftText();
  const verdict = rule.isNeverPositive ? "converges" : isKnown ? verdictOf(drift) : "";
  element("verdict").textContent = verdict;
  element("verdict").className = verdict;
  element("intervals").textContent = intervalsText(p);
  trajectory(new Runs(problem, rule, sampling, Float64Array.of(p), Float64Array.of(q)));
  writeAddress();
}

function driftText(drift) {
  if (Number.isNaN(drift)) return "none: v = 0, there is no stationary law";
  if (drift === Infinity) return "more than 1e150"; // a v below the least number
  return question.rule.isInteger ? String(drift) : drift.toPrecision(5);
}

function unknownDriftText() {
  const { rule, sampling } = question;
  if (isExact(rule, sampling)) return "not computed so close to β2 = 1";
  return rule.isNeverPositive ? "negative" : "known in cyclic order only";
}

function verdictOf(drift) {
  if (drift > 0) return "diverges";
  if (drift < 0) return "converges";
  return drift === 0 ? "does neither" : "does not move";
}

function intervalsText(p) {
  const { rule, sampling } = question, problem = work.problem, swept = rule.axes[1] || rule.axes[0];
  if (rule.isNeverPositive) return `no ${swept}`;
  if (!isExact(rule, sampling)) return "known in cyclic order only";
  const intervals = rule.axes[1] ? divergence(problem, rule, sampling, p) : divergenceOfOnly(problem, rule);
  const shown = intervals.map(([low, high]) =>
    `${(1 - low).toFixed(4)} < ${swept} < ${high === 0 ? "1" : (1 - high).toFixed(4)}`);
  return shown.join(", ") || `no ${swept}`;
}

function trajectory(run) {
  const points = [];
  for (let step = 1; step <= STEPS; step = Math.max(step + 1, Math.round(step * 1.03))) {
    run.run(step - run.step);
    points.push([step, Math.abs(run.x[0] + 2)]);
  }
  run.run(STEPS - run.step);
  const gap = Math.abs(run.x[0] + 2);
  points.push([STEPS, gap]);
  element("gap").textContent = gap.toPrecision(3);
  const context = sharp(element("trajectory"));
  const box = { left: 52, top: 8, width: 316, height: 196 };
  const at = (step, value) => [
    box.left + box.width * Math.log10(step) / Math.log10(STEPS),
    box.top + box.height * (2 - Math.log10(Math.max(value, 1e-6))) / 6,
  ];
  context.strokeRect(box.left, box.top, box.width, box.height);
  context.textAlign = "center";
  for (const step of [1, 10, 100, 1000, 10000]) {
    const [x] = at(step, 1);
    context.fillRect(x, box.top + box.height, 1, 5);
    context.fillText(step, x, box.top + box.height + 19);
  }
  context.fillText("step k", box.left + box.width / 2, box.top + box.height + 38);
  context.textAlign = "right";
  for (const power of [-4, -2, 0, 2]) {
    const [, y] = at(1, 10 ** power);
    context.fillRect(box.left - 5, y, 5, 1);
    context.fillText(power < 0 ? `1e−${-power}` : `1e${power}`, box.left - 8, y + 4);
  }
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  stroke(context, points.map(([step, value]) => at(step, value)), "#0072b2", 1.6, []);
  context.restore();
}

function pointAt(event) {
  const box = element("plane").getBoundingClientRect();
  const scale = Number(element("plane").dataset.width) / box.width;
  const x = (scale * (event.clientX - box.left) - PLOT.left) / PLOT.width;
  const y = 1 - (scale * (event.clientY - box.top) - PLOT.top) / PLOT.height;
  if (x >= 0 && x <= 1 && y >= 0 && y <= 1) moveTo(betaOfX(x), qOfY(y));
}

function moveTo(beta1, q) {
  place = { beta1: Math.max(0, Math.min(LAST_BETA1, beta1)), beta2: Math.max(0, Math.min(1 - 1e-6, 1 - q)) };
  if (moveTo.waiting) return; // at most one reading per frame
  moveTo.waiting = true;
  setTimeout(() => {
    moveTo.waiting = false;
    read();
    draw();
  }, 0);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

element("plane").addEventListener("pointermove", pointAt);
element("plane").addEventListener("pointerdown", pointAt);
element("plane").addEventListener("keydown", (event) => {
  if (!(event.key in ARROWS)) return;
  event.preventDefault();
  const [right, up] = ARROWS[event.key], y = yOfQ(1 - place.beta2) + 0.01 * up;
  moveTo(place.beta1 + 0.01 * right, qOfY(Math.max(0, Math.min(1, y))));
});
element("controls").addEventListener("input", ask);
window.addEventListener("hashchange", () => {
  readAddress();
  ask();
});
readAddress();
ask();
