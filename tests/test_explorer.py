"""The explorer: its mathematics is the library's, and a browser shows it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling, simulate
from adam_transition.commands import explorer
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.stationary_drift import stationary_drift
from tests import browser, experiment

SCHEMES = ("cyclic", "random_shuffling", "with_replacement")


@pytest.fixture
def evaluate(tmp_path):
    page = explorer.page()

    def in_page(script, **kwargs):
        return browser.evaluate(page, script, tmp_path, **kwargs)

    return in_page


@browser.needed
def test_its_drift_is_the_librarys(evaluate):
    rng = np.random.default_rng(0)
    cells = [
        (scheme, n, a, 1 - beta1, q)
        for scheme in SCHEMES
        for n, a in ((3, 0.25), (20, 1 / 361), (12, 1.0))
        for beta1, q in zip(
            [0.0, 0.0, *rng.uniform(0, 0.99, 3)], [1.0, 0.3, *rng.uniform(0.01, 1, 3)]
        )
    ]
    found = evaluate(
        f"{json.dumps(cells)}"
        ".map(([s, n, a, p, q]) => stationaryDrift(counterexample(n, a), s, p, q))"
    )
    for (scheme, n, a, p, q), drift in zip(cells, found, strict=True):
        table = counterexample_table(n, a)
        expected = stationary_drift(table, adam.Hyperparameters(p, q), scheme).drift[0]
        assert drift == pytest.approx(expected, rel=1e-10, abs=1e-11)


@browser.needed
def test_its_boundary_is_the_librarys(evaluate):
    tables = ((5, 0.0625), (20, 1 / 361), (10, 1.0))
    asked = [(s, n, a, b) for s in SCHEMES for n, a in tables for b in (0.0, 0.9)]
    asked.append(("with_replacement", 20, 1.0, 0.98))  # where nothing diverges in cyclic order
    found = evaluate(
        f"{json.dumps(asked)}.map(([s, n, a, b]) => divergence(counterexample(n, a), s, 1 - b))"
    )
    for (scheme, n, a, beta1), intervals in zip(asked, found, strict=True):
        [expected] = divergence_intervals(counterexample_table(n, a), [beta1], scheme)
        assert len(intervals) == len(expected)
        for (low, high), one in zip(intervals, expected, strict=True):
            assert low == pytest.approx(one.low.one_minus_beta2, abs=1e-7)
            assert high == pytest.approx(one.high.one_minus_beta2, rel=1e-6)


@browser.needed
def test_its_runs_are_the_librarys(evaluate):
    """In cyclic order, from both sides of the kink at −1."""
    n, a, steps = 7, 0.1, 2000
    rng = np.random.default_rng(1)
    beta2 = rng.uniform(0.2, 0.99, 12)
    beta1 = rng.uniform(0, 0.95, 12) * np.sqrt(beta2)
    p, q = (1 - beta1).tolist(), (1 - beta2).tolist()
    for x0 in (1.0, -3.0):
        found = evaluate(
            f"(() => {{ const runs = new Runs(counterexample({n}, {a}), 'cyclic', "
            f"Float64Array.from({p}), Float64Array.from({q}), {{ x0: {x0} }}); runs.run(700); "
            f"runs.run({steps - 700}); return Array.from(runs.x); }})()"
        )
        with jax.enable_x64(True):
            problem = problems.as_arrays(problems.counterexample(n, a), np.float64)

            def one(p, q, problem=problem, x0=x0):
                return simulate.simulate(
                    problem, adam.Hyperparameters(p, q), jnp.float64(x0), 0.1,
                    sampling.stream_key(0), method=simulate.Method("cyclic"), num_steps=steps,
                    record_every=steps, max_components=n,
                ).x[-1]  # fmt: skip

            expected = jax.vmap(one)(jnp.array(p), jnp.array(q))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


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
  const edge = divergence(work.problem, question.sampling, 1 - 0.2)[0][1];
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
    assert not {"/*ADAM*/", "/*PAGE*/", "/*PALETTE*/"} & set(text.split())
