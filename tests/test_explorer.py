"""The explorer: its mathematics is the library's, and a browser shows it."""

import dataclasses
import json
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling, simulate
from adam_transition.commands import explorer
from adam_transition.optimizers import OPTIMIZERS
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory import laws
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.rule_boundary import rule_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer
from adam_transition.theory.stationary_drift import stationary_drift
from tests import browser, experiment

SCHEMES = ("cyclic", "random_shuffling", "with_replacement")
OTHERS = ("nadam", "amsgrad", "adabelief", "lion", "signum")


@pytest.fixture
def evaluate(tmp_path):
    page = explorer.page()

    def in_page(script, **kwargs):
        return browser.evaluate(page, script, tmp_path, **kwargs)

    return in_page


@browser.needed
def test_its_drift_is_the_librarys(evaluate):
    rng = np.random.default_rng(0)
    asked = [
        (scheme, n, a, [1.0, 1.0, *rng.uniform(0.01, 1, 3)], [1.0, 0.3, *rng.uniform(0.01, 1, 3)])
        for scheme in SCHEMES
        for n, a in ((3, 0.25), (20, 1 / 361), (12, 1.0))
    ]
    found = evaluate(
        f"{json.dumps(asked)}.map(([s, n, a, ps, qs]) => ps.map((p, i) => "
        "stationaryDrift(counterexample(n, a), OPTIMIZERS.adam, s, p, qs[i])))"
    )
    for (scheme, n, a, p, q), drift in zip(asked, found, strict=True):
        hyper = adam.Hyperparameters(np.array(p), np.array(q))
        expected = stationary_drift(counterexample_table(n, a), hyper, scheme).drift[:, 0]
        assert drift == pytest.approx(expected, rel=1e-10, abs=1e-11)


@browser.needed
def test_its_boundary_is_the_librarys(evaluate):
    tables = ((5, 0.0625), (20, 1 / 361), (10, 1.0))
    asked = [(s, n, a, b) for s in SCHEMES for n, a in tables for b in (0.0, 0.9)]
    # a second of the library and two of the page each, in the random orders
    asked = [one for one in asked if one[0] == "cyclic" or one[1] == 5]
    asked.append(("with_replacement", 20, 1.0, 0.98))  # where nothing diverges in cyclic order
    found = evaluate(
        f"{json.dumps(asked)}.map(([s, n, a, b]) => "
        "divergence(counterexample(n, a), OPTIMIZERS.adam, s, 1 - b))"
    )
    for (scheme, n, a, beta1), intervals in zip(asked, found, strict=True):
        [expected] = divergence_intervals(counterexample_table(n, a), [beta1], scheme)
        assert len(intervals) == len(expected)
        for (low, high), one in zip(intervals, expected, strict=True):
            assert low == pytest.approx(one.low.one_minus_beta2, abs=1e-7)
            assert high == pytest.approx(one.high.one_minus_beta2, rel=1e-6)


_TABLES = ((3, 0.25), (20, 1 / 361), (12, 1.0))
_RNG = np.random.default_rng(2)
_CELLS = np.array([1 - _RNG.uniform(0.2, 0.99, 8), [1.0, *_RNG.uniform(0.01, 1, 7)]])  # p, q
_DIGITS = ((0.02, 0.0), (0.1, 0.01), (0.3, 1e-5))  # β1, β2
_INTERVALS = (
    ("nadam", 20, 1 / 361, 0.3), ("amsgrad", 12, 1.0, 0.3), ("adabelief", 6, 1.0, 0.7),
    ("lion", 6, 1.0, 0.7), ("signum", 20, 1 / 361, 0.0),
)  # fmt: skip
_RUNS = {"n": 7, "a": 0.1, "steps": 150, "starts": [-0.8, -3.0]}
_SWITCHES = [
    ("adam", "cyclic", 0.3),
    *[(name, scheme, 0.3) for name in OTHERS for scheme in ("cyclic", "with_replacement")],
    ("adabelief", "cyclic", 0.0), ("signum", "cyclic", 0.58), ("none", "cyclic", 0.3),
]  # fmt: skip

_SHOWN = """(async () => {
  const [p, q] = CELLS;
  const run = (rule, x0) => {
    const { n, a, steps } = RUNS, [ps, qs] = CELLS.map((one) => Float64Array.from(one));
    const runs = new Runs(counterexample(n, a), rule, "cyclic", ps, qs, { x0 });
    runs.run(50);
    runs.run(steps - 50);
    return Array.from(runs.x);
  };
  const found = { drift: {}, runs: {}, switched: [] };
  for (const name of NAMES) {
    const rule = OPTIMIZERS[name];
    found.drift[name] = TABLES.map(([n, a]) =>
      p.map((_, i) => stationaryDrift(counterexample(n, a), rule, "cyclic", p[i], q[i])));
    found.runs[name] = RUNS.starts.map((x0) => run(rule, x0));
  }
  found.digits = DIGITS.map(([beta1, beta2]) =>
    OPTIMIZERS.adabelief.drift(counterexample(20, 0.05), 1 - beta1, 1 - beta2));
  found.intervals = INTERVALS.map(([name, n, a, beta1]) => {
    const problem = counterexample(n, a), rule = OPTIMIZERS[name];
    return name === "signum" ? divergenceOfOnly(problem, rule) :
      divergence(problem, rule, "cyclic", 1 - beta1);
  });

  const text = (id) => element(id).textContent;
  const isWhiteNear = (beta1) => {
    const canvas = element("plane"), ratio = canvas.width / canvas.dataset.width;
    const [x, y] = pixel(xOfBeta(beta1), 0.9).map((one) => Math.round(one * ratio));
    const { data } = canvas.getContext("2d").getImageData(x - 1, y, 3, 1);
    return [0, 1, 2].some((i) => data.slice(4 * i, 4 * i + 3).every((one) => one === 255));
  };
  for (const [optimizer, sampling, beta1] of SWITCHES) {
    const changed = new Promise((done) => addEventListener("hashchange", done, { once: true }));
    location.hash = new URLSearchParams({ optimizer, sampling, beta1, beta2: 0.5, n: 20 });
    await changed;
    while (work.columnsLeft > 0) await new Promise((done) => setTimeout(done, 20));
    draw();
    found.switched.push({
      chosen: element("optimizer").value, address: location.hash, columns: work.columns.length,
      title: text("question"), label: document.querySelector("dt.optimizer").textContent,
      rule: text("rule"), bounded: text("bounded"), drift: text("drift"), beta2: text("beta2"),
      verdict: text("verdict"), intervals: text("intervals"), gap: text("gap"),
      fixed: element("axis").disabled, edge: isWhiteNear(THRESHOLD),
      fits: document.documentElement.scrollWidth <= innerWidth,
    });
  }
  element("optimizer").value = "lion";
  element("optimizer").dispatchEvent(new Event("input", { bubbles: true }));
  found.address = location.hash;
  return found;
})()"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What one page finds for the optimisers."""
    names = {
        "CELLS": _CELLS.tolist(), "RUNS": _RUNS, "NAMES": ["adam", *OTHERS], "TABLES": _TABLES,
        "DIGITS": _DIGITS, "INTERVALS": _INTERVALS, "SWITCHES": _SWITCHES,
        "THRESHOLD": laws.sign_momentum_threshold(20, 1 / 361),
    }  # fmt: skip
    given = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
    script = _SHOWN.replace("=> {", "=> {" + given, 1)
    return browser.evaluate(explorer.page(), script, tmp_path_factory.mktemp("page"))


def _from_zero(name):
    """The optimiser with its state started at 0, as runs start it.

    AMSGrad's drift depends on the start: from the mean square, the first large slope lifts v, and
    with it the largest v for ever, above the orbit.
    """
    optimizer = OPTIMIZERS[name]
    start = optimizer.rule._replace(init_from_gradients=lambda full, _: optimizer.rule.init(full))
    return dataclasses.replace(optimizer, rule=start)


@browser.needed
@pytest.mark.parametrize("name", OTHERS)
def test_the_drift_of_another_optimiser_is_the_librarys(shown, name):
    """The library runs the rules: 40 memories leave e⁻⁴⁰, and their rounding is below 1e-10."""
    for (n, a), drift in zip(_TABLES, shown["drift"][name], strict=True):
        expected = drift_of_optimizer(
            counterexample_table(n, a), _from_zero(name), adam.Hyperparameters(*_CELLS)
        ).drift[:, 0]
        np.testing.assert_allclose(drift, expected, rtol=1e-10, atol=1e-10)


@browser.needed
def test_the_drift_of_adabelief_keeps_its_digits(shown):
    """Also where g − m cancels: at small β1, where the library's rule has none of them left."""
    n, large = 20, 39
    for (beta1, beta2), drift in zip(_DIGITS, shown["digits"], strict=True):
        with localcontext() as context:
            context.prec = 100
            p, q = Decimal(1 - beta1), Decimal(1 - beta2)  # rounded, as on the page
            m = v = Decimal(0)
            for _ in range(20):  # β^(20 n) is far below the digits
                total = Decimal(0)
                for g in (large, *[-1] * (n - 1)):
                    m += p * (g - m)
                    v += q * ((g - m) ** 2 - v)
                    total -= m / v.sqrt()
        assert drift == pytest.approx(float(total), rel=1e-12)


@browser.needed
def test_where_the_other_optimisers_diverge_is_the_librarys(shown):
    """Of Lion at n = 6 there are two intervals, of which one reaches β2 = 1."""
    for (name, n, a, beta1), intervals in zip(_INTERVALS, shown["intervals"], strict=True):
        expected, _ = rule_intervals(counterexample_table(n, a), OPTIMIZERS[name], beta1)
        ends = [[one.low.one_minus_beta2, one.high.one_minus_beta2] for one in expected]
        assert len(intervals) == len(ends)
        # both bisect log(β/(1 − β)) to about 1e-9
        np.testing.assert_allclose(np.ravel(intervals), np.ravel(ends), rtol=1e-8)
    assert [len(one) for one in shown["intervals"]] == [1, 0, 1, 2, 1]


@browser.needed
@pytest.mark.parametrize("name", ["adam", *OTHERS])
def test_its_runs_are_the_librarys(shown, name):
    """In cyclic order, from both sides of the kink at −1.

    Few steps, because runs near x* multiply rounding errors.
    """
    method = simulate.Method("cyclic", rule=OPTIMIZERS[name].rule)
    n, a, steps, starts = _RUNS.values()
    with jax.enable_x64(True):
        problem = problems.as_arrays(problems.counterexample(n, a), np.float64)

        def one(x0, p, q):
            return simulate.simulate(
                problem, adam.Hyperparameters(p, q), x0, 0.1, sampling.stream_key(0),
                method=method, num_steps=steps, record_every=steps, max_components=n,
            ).x[-1]  # fmt: skip

        cells = jax.vmap(one, (None, 0, 0))
        expected = jax.vmap(cells, (0, None, None))(jnp.array(starts), *jnp.array(_CELLS))
    np.testing.assert_allclose(shown["runs"][name], expected, rtol=1e-9)


@browser.needed
def test_the_texts_follow_the_optimiser(shown):
    found = dict(zip(_SWITCHES, shown["switched"], strict=True))
    assert "optimizer=lion" in shown["address"]
    for (name, scheme, _), one in list(found.items())[:11]:
        assert one["chosen"] == name
        assert f"optimizer={name}" in one["address"]
        assert one["label"].lower() == name
        assert f"does {one['label']} converge" in one["title"]
        assert one["label"] in one["rule"]
        assert bool(one["bounded"]) == OPTIMIZERS[name].bounds_steps
        assert one["fixed"] == (OPTIMIZERS[name].axes[1] is None)
        assert one["fits"]
        is_drawn = scheme == "cyclic" and name != "amsgrad"
        assert (one["columns"] > 0) == is_drawn
        # at sign momentum's threshold and high β2 there is no other boundary
        assert one["edge"] == (name == "signum" and is_drawn)
        if name == "amsgrad":
            assert (one["verdict"], one["intervals"]) == ("converges", "no β2")
        elif is_drawn:
            assert one["verdict"] == "diverges"
        else:
            assert one["verdict"] == ""
            assert one["drift"] == one["intervals"] == "known in cyclic order only"
            assert "cyclic order" in one["rule"]
    signum = found["signum", "cyclic", 0.3]
    assert signum["title"] == "For which β does Signum converge on the counterexample?"
    assert signum["beta2"] == "has no effect"
    assert signum["intervals"] == f"0.0000 < β < {laws.sign_momentum_threshold(20, 1 / 361):.4f}"
    no_law = found["adabelief", "cyclic", 0.0]
    assert "no stationary law" in no_law["drift"]
    assert (no_law["verdict"], no_law["gap"]) == ("does not move", "3.00")
    balanced = found["signum", "cyclic", 0.58]
    assert (balanced["drift"], balanced["verdict"]) == ("0", "does neither")
    assert found["none", "cyclic", 0.3]["chosen"] == "adam"


@browser.needed
def test_its_draws_have_the_laws_of_their_schemes(evaluate):
    n, epochs = 7, 3000
    drawn = evaluate(
        f"{json.dumps(SCHEMES)}.map((s) => {{ const next = draws(s, {n}, 3); "
        f"return Array.from({{ length: {n * epochs} }}, () => next() ? 1 : 0); }})"
    )
    cyclic, shuffled, replaced = (np.array(one).reshape(epochs, n) for one in drawn)
    assert (cyclic == (np.arange(n) == 0)).all()
    assert (shuffled.sum(axis=1) == 1).all()
    places = shuffled.sum(axis=0)
    assert ((places - epochs / n) ** 2 / (epochs / n)).sum() < 22.5  # χ² of 6, one in a thousand
    repeats = (shuffled[1:].argmax(axis=1) == shuffled[:-1].argmax(axis=1)).mean()
    assert abs(repeats - 1 / n) < 4 * np.sqrt(1 / n / epochs)
    hits = replaced.ravel()
    assert abs(hits.mean() - 1 / n) < 4 * np.sqrt(1 / n / hits.size)
    assert abs((hits[1:] & hits[:-1]).mean() - 1 / n**2) < 4 * np.sqrt(1 / n**2 / hits.size)


_LOOK = """(() => {
  const canvas = element("plane"), ratio = canvas.width / canvas.dataset.width;
  const at = (x, y) => Array.from(canvas.getContext("2d").getImageData(
    Math.round(x * ratio), Math.round(y * ratio), 1, 1).data).slice(0, 3);
  const edge = divergence(work.problem, question.rule, question.sampling, 1 - 0.2)[0][1];
  const text = (id) => element(id).textContent;
  return {
    progress: text("progress"), n: text("n-shown"), ratio: Number(text("d1-ratio")),
    edge: at(...pixel(xOfBeta(0.2), yOfQ(edge))),
    inside: at(...pixel(xOfBeta(0.1), yOfQ(0.75))), outside: at(...pixel(xOfBeta(0.9), yOfQ(0.05))),
    beta1: Number(text("beta1")), beta2: Number(text("beta2")), drift: Number(text("drift")),
    verdict: text("verdict"), intervals: text("intervals"), gap: Number(text("gap")),
    address: location.hash, fits: document.documentElement.scrollWidth <= innerWidth,
  };
})()"""


@browser.needed
@pytest.mark.parametrize(("axis", "width"), [("linear", 1100), ("log", 420)])
def test_a_browser_shows_the_plane(evaluate, axis, width):
    fragment = f"#n=20&sampling=with_replacement&axis={axis}&beta1=0.5&beta2=0.9"
    found = evaluate(_LOOK, fragment=fragment, wait=60_000, width=width)
    assert "50000 of 50000" in found["progress"]
    assert found["edge"] == [255, 255, 255]
    palette = json.loads(explorer.page().split("const PALETTE = ")[1].split(";\n")[0])
    inside, outside = (palette.index(found[place]) for place in ("inside", "outside"))
    assert inside > outside + 40  # farther from the minimiser where it diverges
    assert found["n"] == "20"
    assert found["ratio"] == pytest.approx(
        float(problems.counterexample(20).problem_class().d1) / 800, abs=1e-4
    )
    table = counterexample_table(20)
    expected = stationary_drift(table, adam.hyperparameters(0.5, 0.9), "with_replacement").drift[0]
    assert found["drift"] == pytest.approx(expected, rel=1e-4)
    assert found["verdict"] == "converges"
    [interval] = divergence_intervals(table, [0.5], "with_replacement")[0]
    assert f"{interval.high.beta2:.4f}" in found["intervals"]
    assert "axis=" + axis in found["address"]
    assert found["fits"]


_USE = """(async () => {
  const pause = () => new Promise((done) => setTimeout(done, 300));
  const box = element("plane").getBoundingClientRect();
  const scale = box.width / element("plane").dataset.width;
  const point = (beta1, q) => {
    const [x, y] = pixel(xOfBeta(beta1), yOfQ(q)).map((one) => scale * one);
    element("plane").dispatchEvent(
      new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + y }));
  };
  const seen = [];
  point(0.3, 0.6);
  await pause();
  seen.push(LOOK);
  element("plane").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
  await pause();
  seen.push(LOOK);
  element("n").value = COUNTS.indexOf(50);
  element("n").dispatchEvent(new Event("input", { bubbles: true }));
  await pause();
  seen.push(LOOK);
  element("paper-a").checked = false;
  element("a").value = 0;
  element("a").dispatchEvent(new Event("input", { bubbles: true }));
  await pause();
  seen.push(LOOK);
  return seen;
})()"""


@browser.needed
@pytest.mark.parametrize("width", [1100, 420])
def test_pointing_keys_and_sliders_change_what_is_read(evaluate, width):
    use = _USE.replace("LOOK", _LOOK)
    pointed, up, more, steep = evaluate(use, fragment="#n=20", width=width)
    # a pixel is a 410th of the axis
    assert (pointed["beta1"], pointed["beta2"]) == pytest.approx((0.3, 0.4), abs=4e-3)
    assert pointed["verdict"] == "diverges"
    assert pointed["gap"] > 3
    for found, n, a in ((pointed, 20, None), (up, 20, None), (more, 50, None), (steep, 50, 1.0)):
        hyper = adam.hyperparameters(found["beta1"], found["beta2"])
        expected = stationary_drift(counterexample_table(n, a), hyper).drift[0]
        # β are read to four digits
        assert found["drift"] == pytest.approx(expected, abs=2e-2)
    assert up["beta2"] == pytest.approx(pointed["beta2"] + 0.00995, abs=2e-4)
    assert up["beta1"] == pointed["beta1"]
    assert (more["n"], steep["n"]) == ("50", "50")
    assert steep["ratio"] > 100 * more["ratio"]


def test_it_is_one_file_that_needs_no_other(tmp_path, capsys):
    assert experiment.run(explorer, f"--out={tmp_path}") == 0
    text = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert str(tmp_path / "explorer.html") in capsys.readouterr().out
    assert "src=" not in text
    assert "http" not in text
    assert not {"/*MATHEMATICS*/", "/*OPTIMIZERS*/", "/*PAGE*/", "/*PALETTE*/"} & set(text.split())
