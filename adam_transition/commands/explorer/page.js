"use strict";
// The page around adam.js: controls, the plane, and the (β1, β2) under the pointer. Long work is cut
// into slices between which the browser draws; changing a control restarts it.

const COUNTS = [3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 100];
const SIDE = 96; // cells per axis
const COLUMNS = 128; // number of β1 at which the boundary is computed
const STEPS = 50000;
const LAST_BETA1 = 0.995;
const DECADES = 3; // of 1 − β2 on the logarithmic axis
const PLOT = { left: 56, top: 10, width: 410, height: 430 };
const RANGE = { low: 1e-4, high: 1e2 }; // distances at the ends of the colour scale

const element = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

let question; // the settings shown: n, a, sampling, axis
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
  const { n, a, sampling, axis } = question;
  const kept = { n, sampling, axis, beta1: place.beta1.toFixed(4), beta2: place.beta2.toFixed(6) };
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
  question = { n, a, sampling: chosen("sampling"), axis: chosen("axis") };
  const problem = counterexample(n, a);
  element("n-shown").textContent = n;
  element("a-shown").textContent = a.toPrecision(3);
  element("smoothness").textContent = problem.smoothness.toPrecision(4);
  element("d1").textContent = problem.d1.toPrecision(5);
  element("d1-ratio").textContent = (problem.d1 / (2 * n * n)).toPrecision(4);
  begin(problem);
  read();
}

// ---- the work

function begin(problem) {
  const cells = SIDE * SIDE, p = new Float64Array(cells), q = new Float64Array(cells);
  for (let i = 0; i < cells; i++) {
    p[i] = 1 - betaOfX((i % SIDE + 0.5) / SIDE);
    q[i] = qOfY((Math.floor(i / SIDE) + 0.5) / SIDE);
  }
  const runs = new Runs(problem, question.sampling, p, q);
  const mine = (work = { problem, runs, columns: [], picture: null, stepsAtOnce: 40 });
  const slice = () => {
    if (work !== mine) return;
    const started = performance.now();
    if (mine.columns.length < COLUMNS) {
      mine.columns.push(columnAt(mine.columns.length));
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

function columnAt(i) {
  const beta1 = betaOfX((i + 0.5) / COLUMNS);
  return { beta1, intervals: divergence(work.problem, question.sampling, 1 - beta1) };
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
  stroke(context, squareRoot(), "#000", 1.2, [5, 4]);
  for (const [colour, line] of [["#000", 4.5], ["#fff", 2.5]]) {
    for (const piece of boundaryPieces()) stroke(context, piece, colour, line, []);
  }
  const [x, y] = pixel(xOfBeta(place.beta1), yOfQ(1 - place.beta2));
  for (const [colour, line] of [["#fff", 3], ["#000", 1.2]]) {
    stroke(context, [[x - 8, y], [x + 8, y]], colour, line, []);
    stroke(context, [[x, y - 8], [x, y + 8]], colour, line, []);
  }
  context.restore();
  axes(context);
  bar(context);
  const steps = work.runs.step, percent = Math.round(100 * work.columns.length / COLUMNS);
  element("progress").textContent =
    percent < 100 ? `Boundary: ${percent} %.` : `Boundary done. Simulated: ${steps} of ${STEPS} steps.`;
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

/** The edges of the intervals, joined from column to column while their number stays the same. */
function boundaryPieces() {
  const pieces = [];
  let open = [];
  const close = () => {
    // close the fold where two edges have met
    for (let i = 0; i + 1 < open.length; i += 2) {
      if (!open[i + 1].outside) pieces.push([open[i].at(-1), open[i + 1].at(-1)]);
    }
    pieces.push(...open);
  };
  for (const { beta1, intervals } of work.columns) {
    const edges = intervals.flat();
    const points = edges.map((q) => pixel(xOfBeta(beta1), yOfQ(q)));
    if (points.length !== open.length) {
      close();
      open = points.map(() => []);
    }
    points.forEach((point, i) => {
      open[i].push(point);
      open[i].outside = edges[i] === 1 || edges[i] === 0;
    });
  }
  return pieces.concat(open).filter((piece) => !piece.outside);
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
  context.fillText("β1", left + width / 2, top + height + 38);
  context.textAlign = "right";
  const logarithmic = question.axis === "log";
  for (const one of logarithmic ? [1, 0.1, 0.01, 0.001] : [0, 0.2, 0.4, 0.6, 0.8, 0.95]) {
    const [, y] = pixel(0, yOfQ(logarithmic ? one : 1 - one));
    context.fillRect(left - 5, y, 5, 1);
    context.fillText(one, left - 8, y + 4);
  }
  context.save();
  context.translate(14, top + height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(logarithmic ? "1 − β2" : "β2", 0, 0);
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
  const { sampling } = question, problem = work.problem;
  const tooNear = q < LEAST_Q[sampling];
  const drift = tooNear ? NaN : stationaryDrift(problem, sampling, p, q);
  element("beta1").textContent = beta1.toFixed(4);
  element("beta2").textContent = beta2.toFixed(Math.max(4, Math.ceil(2 - Math.log10(q))));
  element("drift").textContent = tooNear ? "not computed so close to β2 = 1" : drift.toPrecision(5);
  const verdict = tooNear ? "" : drift > 0 ? "diverges" : "converges";
  element("verdict").textContent = verdict;
  element("verdict").className = verdict;
  const shown = divergence(problem, sampling, p).map(
    ([low, high]) => `${(1 - low).toFixed(4)} < β2 < ${(1 - high).toFixed(4)}`);
  element("intervals").textContent = shown.join(", ") || "no β2";
  trajectory(new Runs(problem, sampling, Float64Array.of(p), Float64Array.of(q)));
  writeAddress();
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
