"""Balls contain the drift, certificates hold, and the checker refuses what does not."""

import importlib.util
import itertools
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import xarray as xr
from flint import fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam
from adam_transition.commands import _runner, certify
from adam_transition.studies.certify import claims as study_claims
from adam_transition.studies.certify import data
from adam_transition.theory import balls, certificates
from adam_transition.theory.stationary_drift import stationary_drift
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

CHECKER = Path("tools/check_certificate.py")
REFERENCE = Path(__file__).parent / "reference"


def _cyclic_of_mpmath(slopes, beta1, beta2):
    """D in cyclic order with 60 digits, from the weights as they are defined."""
    with mpmath.workdps(60):
        n = len(slopes)
        g = [mpmath.mpf(x.numerator) / x.denominator for x in slopes]
        b1, b2 = (mpmath.mpf(x.numerator) / x.denominator for x in (beta1, beta2))
        total = mpmath.mpf(0)
        for i in range(n):
            m = sum((1 - b1) * b1**j * g[(i - j) % n] for j in range(n)) / (1 - b1**n)
            v = sum((1 - b2) * b2**j * g[(i - j) % n] ** 2 for j in range(n)) / (1 - b2**n)
            total -= m / mpmath.sqrt(v)
        return +total


TABLES = st.lists(st.fractions(-9, 9, max_denominator=6).filter(bool), min_size=2, max_size=6)
BETAS = st.fractions(0, Fraction(99, 100), max_denominator=100)


@given(slopes=TABLES, beta1=BETAS, beta2=BETAS)
@settings(max_examples=60, deadline=None)
def test_a_ball_in_cyclic_order_contains_the_drift(slopes, beta1, beta2):
    ball = balls.cyclic_drift_at(balls.exact(slopes), *balls.exact([beta1, beta2]))
    with mpmath.workdps(60):
        true = _cyclic_of_mpmath(slopes, beta1, beta2)
        mid = mpmath.mpf(ball.mid().str(50, radius=False))
        assert abs(mid - true) <= mpmath.mpf(float(ball.rad())) + mpmath.mpf(10) ** -45
    assert float(ball.rad()) < 1e-25 * len(slopes) * 9


@given(
    slopes=TABLES,
    at=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    inside=st.tuples(st.fractions(0, 1), st.fractions(0, 1)),
)
@settings(max_examples=60, deadline=None)
def test_a_ball_over_a_rectangle_contains_the_drift_inside(slopes, at, inside):
    """At any of its points, also where the ball is wide."""
    exact = balls.exact(slopes)
    radius = fmpq(1, 32)
    centre = [fmpq(2 * i + 1, 32) for i in at]
    table = balls.cyclic(exact)
    m = balls.first_moment(table, centre[0], radius)
    root = balls.inverse_root(table, centre[1], radius)
    over = balls.drift_over(m, root, radius, radius)
    point = [fmpq(2 * i, 32) + fmpq(x.numerator, x.denominator) / 16 for i, x in zip(at, inside)]
    if point[0] < 1 and point[1] < 1:
        assert over.overlaps(balls.cyclic_drift_at(exact, *point))
    step = fmpq(1, 10**6)
    if step < point[1] < 1 - step:  # a difference quotient is a slope at some point in between
        low, high = (balls.cyclic_drift_at(exact, centre[0], point[1] + s) for s in (-step, step))
        wider = balls.inverse_root(table, centre[1], radius + 2 * step)
        at_centre = balls.first_moment(table, centre[0], fmpq(0))
        assert balls.slope_over(at_centre, wider).overlaps((high - low) / (2 * step))


def _shuffled_by_enumeration(slopes, beta1, beta2, epochs):
    """D under random shuffling from all histories of the last epochs, before which v is E g²."""
    n, b1, b2 = len(slopes), float(beta1), float(beta2)
    g = np.array([float(x) for x in slopes])
    orders = np.array(list(itertools.permutations(range(n))))
    m, v = np.zeros(1), np.full(1, np.mean(g**2))
    for last in [False] * (epochs - 1) + [True]:
        draws = g[orders]  # [orders, n]
        m = np.repeat(m[:, None], len(orders), axis=1).ravel()
        v = np.repeat(v[:, None], len(orders), axis=1).ravel()
        draws = np.tile(draws, (len(m) // len(orders), 1))
        total = 0.0
        for t in range(n):
            m = b1 * m + (1 - b1) * draws[:, t]
            v = b2 * v + (1 - b2) * draws[:, t] ** 2
            if last:
                total -= np.mean(m / np.sqrt(v))
    return total


def test_a_ball_of_random_shuffling_contains_the_mean_over_all_orders():
    slopes, beta1, beta2 = (
        [Fraction(3), Fraction(-1), Fraction(-1, 2)],
        Fraction(1, 10),
        Fraction(1, 20),
    )
    ball = balls.random_drift_at(
        balls.exact(slopes), *balls.exact([beta1, beta2]), "random_shuffling"
    )
    brute = _shuffled_by_enumeration(slopes, beta1, beta2, 5)
    # four epochs back: β2^12 and β1^12
    assert float(ball.mid()) == pytest.approx(brute, abs=1e-11)
    assert float(ball.rad()) < 1e-19


@given(
    slopes=st.lists(
        st.sampled_from([Fraction(5), Fraction(-1), Fraction(-1, 3)]), min_size=2, max_size=7
    ),
    beta1=BETAS,
    beta2=st.fractions(Fraction(1, 50), Fraction(49, 50), max_denominator=50),
    sampling=st.sampled_from(["random_shuffling", "with_replacement"]),
)
@settings(max_examples=12, deadline=None)
def test_a_ball_in_a_random_order_contains_the_integral_in_double_precision(
    slopes, beta1, beta2, sampling
):
    ball = balls.random_drift_at(balls.exact(slopes), *balls.exact([beta1, beta2]), sampling)
    table = np.array([float(x) for x in slopes])[:, None]
    hyper = adam.hyperparameters(float(beta1), float(beta2))
    drift = stationary_drift(table, hyper, sampling).drift[0]
    assert float(ball.rad()) < 1e-17
    assert float(ball.mid()) == pytest.approx(drift, abs=1e-11 * len(slopes))


def test_the_error_of_the_spacing_is_not_underestimated(monkeypatch):
    """With wide spacing the sum is wrong, and the ball says so."""
    slopes, point = balls.exact([380, *[-1] * 19]), balls.exact([Fraction(1, 2), Fraction(1, 5)])
    fine = balls.random_drift_at(slopes, *point, "with_replacement")
    for spacing in (0.5, 0.9, 1.6):
        monkeypatch.setattr(balls, "_SPACING", spacing)
        coarse = balls.random_drift_at(slopes, *point, "with_replacement")
        assert coarse.overlaps(fine)
        assert float(coarse.rad()) > float(fine.rad())
    assert abs(float(coarse.mid()) - float(fine.mid())) > 1e-6  # so that it had to


def test_areas_add_up_and_rectangles_are_disjoint():
    tree = certificates.tree_of_area(balls.exact([12, -1, -1, -1]), 6)
    shares = certificates.shares(tree)
    assert shares.away + shares.back + shares.undecided == 1
    assert min(shares) > 0
    seen = np.zeros((64, 64), int)
    for box in certificates.boxes(tree):
        width = 64 >> box.level
        seen[box.i * width : (box.i + 1) * width, box.j * width : (box.j + 1) * width] += 1
    assert (seen == 1).all()
    deeper = certificates.shares(certificates.tree_of_area(balls.exact([12, -1, -1, -1]), 8))
    assert deeper.undecided < 0.5 * shares.undecided
    assert shares.away <= deeper.away <= 1 - deeper.back <= 1 - shares.back
    scaled_up = certificates.tree_of_area(balls.exact([Fraction(12, 7), *[Fraction(-1, 7)] * 3]), 6)
    assert scaled_up == tree


@pytest.mark.parametrize("tree", ["", "s", "++", "s+++", "s+++++", "sx+++", "i"])
def test_damaged_trees_are_refused(tree):
    with pytest.raises(ValueError, match="tree"):
        list(certificates.boxes(tree))


@pytest.mark.parametrize(
    ("cover", "changes"),
    [
        ("+", 0), ("s+-", 1), ("ss+d-", 1), ("ss+di", None), ("s+s-s+-", 3), ("sd+", None),
        ("si+", None), ("ss-i+", 1), ("s+?", None), ("sss+id-", None), ("ss+i+", 0), ("d", None),
    ],
)  # fmt: skip
def test_what_a_cover_proves(cover, changes):
    assert certificates.proved_changes(cover) == changes


def test_zero_gradients_stay_undecided_where_v_may_vanish():
    tree = certificates.tree_of_area(balls.exact([3, 0, -1]), 5)
    corner = next(certificates.boxes(tree))
    assert (corner.i, corner.j, corner.sign) == (0, 0, "?")
    with pytest.raises(ValueError, match="some are 0"):
        balls.random_drift_at(balls.exact([3, 0, -1]), fmpq(0), fmpq(1, 2), "with_replacement")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2, -1], fmpq(1), fmpq(1, 2), "with_replacement"), "need 0 <= beta1"),
        (([2, -1], fmpq(0), fmpq(0), "with_replacement"), "0 < beta2 < 1"),
        (([2, -1], fmpq(0), fmpq(1, 2), "cyclic"), "sampling=cyclic"),
        ((list(range(1, 13)), fmpq(0), fmpq(1, 2), "random_shuffling"), "too many"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    slopes, *rest = arguments
    with pytest.raises(ValueError, match=message):
        balls.random_drift_at(balls.exact(slopes), *rest)
    with pytest.raises(ValueError, match="not finite"):
        balls.exact([float("inf")])


CYCLIC = json.loads((REFERENCE / "ref_cyclic_shared.json").read_text())
RANDOM = json.loads((REFERENCE / "ref_random_shared.json").read_text())


def _slopes(row):
    """The slopes of a reference row, whose a is 1/(n−1)² or another fraction, in units of a."""
    a, n = Fraction(row["a"]).limit_denominator(10**4), row["n"]
    assert float(a) == pytest.approx(row["a"], rel=1e-15)
    return balls.exact([1 / a + n - 1, *[Fraction(-1)] * (n - 1)])


@pytest.mark.parametrize("row", CYCLIC, ids=lambda row: f"{row['n']} {row['a']:.3g} {row['beta1']}")
def test_the_references_in_cyclic_order_are_enclosed(row):
    ends = [end for interval in row["diverges"] for end in interval if end > 0]
    beta1 = Fraction(row["beta1"]).limit_denominator(1000)
    found = certificates.edges(_slopes(row), beta1, "cyclic", ends)
    assert certificates.proved_changes(found.cover) == len(ends)
    for end, (low, high) in zip(ends, found.intervals, strict=True):
        assert low <= Fraction(end) <= high
        assert high - low <= 1e-12


@pytest.mark.parametrize(
    "row", RANDOM, ids=lambda row: f"{row['n']} {row['sampling']} {row['beta1']}"
)
def test_the_references_in_random_orders_are_enclosed(row):
    end = row["upper_boundary"]
    found = certificates.edges(_slopes(row), Fraction(row["beta1"]), row["sampling"], [end])
    [(low, high)] = found.intervals
    assert low <= Fraction(end) <= high
    assert high - low <= 1e-12


def test_what_cannot_be_proved_is_refused():
    """Changes nearer to 0 than the cover looks, a sum near 0, and too many steps."""
    extreme = balls.exact([10**13 + 2, -1, -1])
    with pytest.raises(ValueError, match="could not be proved"):
        certificates.edges(extreme, Fraction(0), "cyclic", [])
    with pytest.raises(ValueError, match=r"beta2=0\.9999999\d*: a ball of the drift would take 1e"):
        balls.random_drift_at(
            balls.exact([3, -1]), fmpq(0), fmpq(9999999, 10**7), "with_replacement"
        )
    points = [Fraction(1, 2), Fraction(9, 10)]
    slopes = balls.exact([380, *[-1] * 19])
    with pytest.raises(ValueError, match="do not fit"):
        certificates.edges(slopes, Fraction(0), "with_replacement", [], points)


def test_a_sign_change_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"no sign change was proved near beta2=0\.9"):
        certificates.edges(balls.exact([380, *[-1] * 19]), Fraction(0), "cyclic", [0.9])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("certify")
    flags = ["--n=5", "--a=1/16", "--beta1=0,1/4", "--depth=9", f"--out={out}"]
    assert experiment.run(certify, *flags) == 0
    summary = json.loads((out / "certify.json").read_text())
    return xr.open_zarr(out / "certify.zarr", consolidated=False).load(), summary, out


def test_the_contract_of_the_summary(finished):
    dataset, summary, out = finished
    low, high = summary["area"]
    assert low < high < low + 0.01
    assert summary["decided"] == pytest.approx(1 - (high - low), abs=1e-12)
    assert summary["certificate"] == str(out / "certificate.json")
    content = json.loads((out / "certificate.json").read_text())
    assert content == data.certificate(dataset)
    rows = {(row["sampling"], row["beta1"]): row for row in summary["rows"]}
    assert rows["cyclic", 0.25]["complete"]
    reference = next(r for r in CYCLIC if (r["n"], r["a"], r["beta1"]) == (5, 0.0625, 0.25))
    np.testing.assert_allclose(
        np.mean(rows["cyclic", 0.25]["edges"], axis=1), reference["diverges"][0], atol=1e-12
    )
    assert (out / "certify.png").stat().st_size > 10_000
    # the area against a fine grid of the drift in double precision
    grid = (np.arange(300) + 0.5) / 300
    hyper = adam.Hyperparameters(1 - grid[:, None], 1 - grid)
    drift = stationary_drift(np.array([[20.0], [-1.0], [-1.0], [-1.0], [-1.0]]), hyper).drift
    assert (drift > 0).mean() == pytest.approx((low + high) / 2, abs=0.004)


def test_every_claim_has_three_verdicts(finished):
    dataset, *_ = finished

    def undecided(dataset):
        codes = dataset["tree"].values.copy()
        codes[codes == ord("+")] = ord("?")
        return dataset.assign(tree=("node", codes))

    def without_a_change(dataset):
        return dataset.assign(edge=dataset["edge"].where(dataset["sampling"] != "cyclic"))

    def without_a_cover(dataset):
        return dataset.assign(cover=dataset["cover"] * 0)

    deep = dataset.assign(tree=("node", np.frombuffer(b"s++--", np.uint8)))
    cases = {
        "edges_are_enclosed": (same, scaled(edge=1 + np.array([0, 1e-9])), missing("edge")),
        "double_precision_is_right": (same, scaled(agrees=0.9), missing("agrees")),
        "no_other_sign_changes": (same, without_a_change, without_a_cover),
    }

    def others(dataset):
        return [one for one in study_claims.claims(dataset) if one.id != "area_is_decided"]

    assert_three_verdicts(others, dataset, cases)
    # a share that is counted exactly is never open
    assert study_claims.claims(deep)[0].verdict == "holds"
    assert study_claims.claims(undecided(dataset))[0].verdict == "fails"


def _check(path):
    command = [sys.executable, str(CHECKER), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_checker_stands_alone():
    text = CHECKER.read_text()
    assert len(text.splitlines()) <= 150
    imported = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    roots = {line.split()[1].split(".")[0] for line in imported}
    assert roots <= {*sys.stdlib_module_names, "flint"}


def test_the_checker_proves_the_certificate(finished):
    *_, out = finished
    done = _check(out / "certificate.json")
    assert done.returncode == 0, done.stderr
    assert "9 sign changes, in intervals at most 1/2199023255552 wide" in done.stdout


def _flipped(sign, other):
    def edit(content):
        tree = content["area"]["tree"]
        places = [i for i, node in enumerate(tree) if node == sign]
        place = places[len(places) // 2]
        content["area"]["tree"] = tree[:place] + other + tree[place + 1 :]

    return edit


def _edge(order, at, **changes):
    def edit(content):
        [one] = [e for e in content["edges"] if (e["sampling"], e["beta1"]) == (order, at)]
        one.update({k: v(one[k]) if callable(v) else v for k, v in changes.items()})

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _flipped("+", "-"),
        _flipped("-", "+"),
        _flipped("?", "+"),
        _flipped("+", "?"),
        _flipped("s", ""),
        lambda content: content["area"]["areas"].update({"+": "1/2"}),
        lambda content: content["area"].update(tree=content["area"]["tree"] + "+"),
        lambda content: content["slopes"].__setitem__(0, "19"),
        lambda content: content["slopes"].__setitem__(0, "1"),
        lambda content: content.update(format="another"),
        _edge("cyclic", "0", starts_away=False),
        _edge("cyclic", "1/4", intervals=lambda pairs: pairs[:1]),
        _edge("cyclic", "1/4", intervals=lambda pairs: pairs[::-1]),
        _edge("cyclic", "0", cover=""),
        _edge("cyclic", "0", cover="+"),
        _edge("cyclic", "0", cover=lambda cover: cover.replace("-", "?")),
        _edge("with_replacement", "0", intervals=lambda pairs: [["1/2", "2/3"]]),
        _edge("with_replacement", "0", sampling="cyclic"),
        _edge("random_shuffling", "0", points=lambda p: [[p[0][0], "-"], *p[1:]]),
        _edge("random_shuffling", "0", sampling="with_replacement"),
        # found by a referee: a negative β2, nodes that are no characters, an empty entry
        _edge("cyclic", "0", intervals=lambda pairs: [["-1/2", "-1/3"]]),
        _edge("cyclic", "0", cover=lambda cover: ["s", "", *cover[1:]]),
        _edge("cyclic", "0", beta1="-1/2"),
        _edge("with_replacement", "0", beta1="1"),
        _edge("with_replacement", "0", intervals=[], points=[]),
        _edge("with_replacement", "0", sampling="another", intervals=[], points=[]),
        _edge("cyclic", "0", starts_away="false"),
        lambda content: content["edges"].append({**content["edges"][0], "beta1": "0/7"}),
    ],
)
def test_the_checker_refuses_what_is_not_so(finished, edit, tmp_path):
    *_, out = finished
    content = json.loads((out / "certificate.json").read_text())
    edit(content)
    (tmp_path / "edited.json").write_text(json.dumps(content))
    done = _check(tmp_path / "edited.json")
    assert done.returncode == 1
    assert done.stderr.startswith("refused: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--a=0"], "--a=0: must be above 0"),
        (["--a=x"], "--a: 'x' is not a number"),
        (["--beta1=1"], "--beta1=1: values must lie in [0, 1)"),
        (["--sampling=shuffle_once"], "--sampling=shuffle_once: allowed are"),
        (["--n=2"], "n"),
        ([f"--beta1=1/{10**70}"], "at most 60 digits"),
        (["--beta1=0.99999999999999999999"], "must lie in [0, 1)"),
        (["--beta1=0.5,0.50000000000000000001"], "differ as doubles"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, capsys):
    experiment.assert_refused(certify, tmp_path / "out", capsys, flags, message)


def test_without_flint_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"adam-transition\[certify\]"):
        _runner.check_installed(certify.COMMAND.needs, certify.COMMAND.extra)


def test_resuming_writes_the_same_certificate(finished):
    *_, out = finished
    before = (out / "certificate.json").read_bytes()
    flags = ["--n=5", "--a=1/16", "--beta1=0,1/4", "--depth=9", f"--out={out}"]
    assert experiment.run(certify, *flags) == 0
    assert (out / "certificate.json").read_bytes() == before
