"""Rules for another batch size: values, invariances, and the boundary that they should follow."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adam_transition.advise import (
    GradientTable,
    Setting,
    advise,
    beta2_of_half_life,
    clipped_rule,
    half_life,
    half_life_rule,
    is_large_enough,
    needed_beta2,
    recommendation,
    sde_rule,
)
from adam_transition.commands import advise as command
from adam_transition.sampling import stream_key
from adam_transition.theory import laws
from tests import experiment

SIZES = st.floats(1, 1e6)
BETAS = st.floats(0.01, 0.99999)


def test_values():
    assert half_life_rule(Setting(512, 0.9, 0.95), 16).beta2 == pytest.approx(0.95 ** (1 / 32))
    assert clipped_rule(Setting(32, 0.9, 0.999), 16_384).beta2 == 0.95
    assert clipped_rule(Setting(32, 0.9, 0.999), 1).beta2 == 0.9999
    # the linear SDE rule would give 1 − 32·0.05 < 0
    assert 0 < sde_rule(Setting(16, 0.9, 0.95), 512).beta2 < 1
    assert half_life(0.5, 64) == 64
    assert half_life(0.0, 64) == 0


@given(SIZES, BETAS, BETAS, SIZES)
def test_rules_keep_the_half_life_and_stay_inside(size, beta1, beta2, other):
    known = Setting(size, beta1, beta2)
    exponent = other / size
    assume(beta2**exponent < 1 - 1e-12 and beta1**exponent < 1 - 1e-12)
    assume(beta2**exponent > 1e-300)
    for rule in (half_life_rule, sde_rule):
        found = rule(known, other)
        assert 0 <= found.beta2 < 1
        assert half_life(found.beta2, other) == pytest.approx(half_life(beta2, size), rel=1e-3)
    assert 0.95 <= clipped_rule(known, other).beta2 <= 0.9999
    for advice in advise(known, other):
        assert advice.bounded_steps == (advice.setting.beta1 < math.sqrt(advice.setting.beta2))


@given(SIZES, st.floats(0.5, 0.9999), SIZES, SIZES)
def test_going_there_in_two_moves_is_going_there_in_one(size, beta2, middle, end):
    known = Setting(size, 0.9, beta2)
    assume(all(1e-200 < beta2 ** (to / size) < 1 - 1e-9 for to in (middle, end)))
    direct = half_life_rule(known, end).beta2
    assert half_life_rule(half_life_rule(known, middle), end).beta2 == pytest.approx(
        direct, rel=1e-5
    )
    assert half_life_rule(known, size).beta2 == beta2


@given(st.floats(1, 1e9), SIZES)
def test_half_life_and_beta2_are_inverse(samples, size):
    assume(1e-200 < 2 ** (-size / samples) < 1 - 1e-9)
    assert half_life(beta2_of_half_life(samples, size), size) == pytest.approx(samples, rel=1e-5)


def test_the_half_life_rule_follows_the_boundary_of_skewed_noise():
    """Samples n, −1, …, −1: for means of B of them 1 − β2* is linear in B to first order."""
    rng = np.random.default_rng(0)
    samples = np.array([200.0] + [-1.0] * 199)
    stars = []
    for size in (1, 2, 4):
        batches = rng.choice(samples, (400_000, size)).mean(axis=1)
        batches += samples.mean() - batches.mean()
        stars.append(laws.with_replacement_law(batches[:, None], 0.0))
    np.testing.assert_allclose(np.array(stars) / stars[0], [1, 2, 4], rtol=0.06)


def test_advice_comes_in_the_order_of_the_paper():
    by_rule = {one.rule: one for one in advise(Setting(512, 0.99, 0.95), 16)}
    assert by_rule["half-life"].steps[0].startswith("raise β2 from 0.95 to 0.998398")
    assert by_rule["half-life"].bounded_steps
    assert by_rule["SDE"].learning_rate_factor == pytest.approx(math.sqrt(1 / 32))
    assert by_rule["SDE"].epsilon_factor == pytest.approx(math.sqrt(32))
    larger = advise(Setting(16, 0.99, 0.95), 64)[0]
    assert not larger.bounded_steps
    assert "then take β1 below √β2" in larger.steps[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: half_life_rule(Setting(0, 0.9, 0.95), 16), "batch_size=0"),
        (lambda: half_life_rule(Setting(8, 0.9, 0.95), 0), "new_batch_size=0"),
        (lambda: half_life_rule(Setting(8, 0.9, 1.0), 16), "beta2=1.0"),
        (lambda: sde_rule(Setting(8, 1.0, 0.9), 16), "beta1=1.0"),
        (lambda: half_life_rule(Setting(1e9, 0.9, 0.95), 1e-9), "rounds to 1"),
        (lambda: clipped_rule(Setting(8, 0.9, 0.9), 16, floor=0.99, ceiling=0.9), "floor=0.99"),
        (lambda: beta2_of_half_life(0, 16), "samples=0"),
        (lambda: beta2_of_half_life(1e30, 16), "rounds to 1"),
        (lambda: advise(Setting(8, 0.9, 0.9), None), "new_batch_size=None: needs one number"),
        (lambda: advise(Setting(8, 0.9, 0.9), "16"), "new_batch_size='16': needs one number"),
        (lambda: advise((8, 0.9, 0.9), 16), r"known=\(8, 0.9, 0.9\): needs a Setting"),
        (lambda: half_life("a", 2), "beta2='a': needs one number"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_command_prints_the_rules_and_writes_them(tmp_path, capsys):
    args = ["--batch_size=512", "--beta2=0.95", "--new_batch_size=16"]
    assert experiment.run(command, f"--out={tmp_path}", *args) == 0
    printed = capsys.readouterr().out
    assert "half-life: raise β2 from 0.95 to 0.998398" in printed
    summary = json.loads((tmp_path / "advise.json").read_text())
    assert [row["rule"] for row in summary["rows"]] == ["half-life", "SDE", "clipped"]
    assert summary["rows"][0]["beta2"] == pytest.approx(0.95 ** (1 / 32))
    assert printed.startswith(summary["recommendation"])
    assert summary["recommendation"].startswith("Do this: β2 = 0.998398 or more (the usual 0.999")


def test_a_rule_says_where_it_does_not_hold():
    """k(1 − β1) = 6.4: the exponential form would give β1 = 0.0012, the linear one −5.4."""
    by_rule = {one.rule: one for one in advise(Setting(8, 0.9, 0.99), 512)}
    assert not by_rule["SDE"].holds
    assert "k(1 − β1)" in by_rule["SDE"].limits
    assert "6.4" in by_rule["SDE"].steps[0]
    assert all(one.preserves and one.limits for one in by_rule.values())
    assert not advise(Setting(8, 0.9, 0.99), 8 * 128)[0].holds  # the half-life rule: β2 = 0.28
    assert all(one.holds for one in advise(Setting(512, 0.9, 0.95), 16))


@pytest.mark.parametrize(
    ("known", "size", "line"),
    [
        (Setting(512, 0.9, 0.95), 16, "β2 = 0.998398 or more (the usual 0.999 is already enough)"),
        (Setting(16, 0.9, 0.999), 512, "keep β2 = 0.999: it is large enough"),
        (Setting(16, 0.9, 0.999), 8, "β2 = 0.9995; β1 = 0.9; the learning rate as it is"),
        (Setting(1, 0.9, 0.9999999), 1000, "keep β2 = 0.9999999: it is large enough"),
        (Setting(16, 0.99, 0.95), 64, "β1 below √β2 = 0.9747 instead of 0.99"),
    ],
)
def test_one_line_says_what_to_do(known, size, line):
    found = recommendation(known, advise(known, size))
    assert found.startswith("Do this: ")
    assert line in found
    assert "learning rate" in found


def test_no_step_is_printed_where_a_rule_does_not_hold(tmp_path, capsys):
    args = ["--batch_size=8", "--beta2=0.99", "--new_batch_size=512"]
    assert experiment.run(command, f"--out={tmp_path}", *args) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Do this: keep β2 = 0.99")
    assert "0.00117" not in printed
    [row] = [
        r for r in json.loads((tmp_path / "advise.json").read_text())["rows"] if not r["holds"]
    ]
    assert row["rule"] == "SDE"
    assert row["beta1"] is None


def _recorded(path, rows):
    np.save(path, rows)
    return f"--gradients={path}"


def test_recorded_gradients_are_measured(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((600, 8)) < 0.05, 20.0, -0.5) + 0.1 * rng.normal(size=(600, 8))
    flag = _recorded(tmp_path / "gradients.npy", rows)
    args = ["--beta2=0.9", "--new_batch_size=256", flag, "--num_parameters=100"]
    assert experiment.run(command, f"--out={tmp_path}", *args) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "advise.json").read_text())["gradients"]
    table = GradientTable.from_rows(rows, num_parameters=100)
    needed = needed_beta2(table, stream_key(0), beta1=0.9)
    assert found["one_minus_beta2"] == pytest.approx(needed.one_minus_beta2)
    assert (found["low"], found["high"]) == pytest.approx((needed.low, needed.high))
    assert found["recommended_beta2"] == pytest.approx(0.95)  # the floor of the clipped rule
    answer = is_large_enough(table, stream_key(0), beta1=0.9, beta2=0.95)
    assert found["verdict"] == answer.verdict
    assert (
        f"From 600 recorded gradients, at β1 = 0.9: β2 ≥ {1 - needed.one_minus_beta2:.6g}"
        in printed
    )
    assert needed.reason in printed
    noise = rng.normal(size=(30, 8))
    lost = _recorded(tmp_path / "noise.npy", noise - noise.mean(axis=0) + 1e-3)
    assert experiment.run(command, f"--out={tmp_path}", lost, "--json=-") == 0
    found = json.loads(capsys.readouterr().out)["gradients"]
    assert found["noise_ratio_interval"][1] is None
    assert found["verdict"] != "good"


def test_a_file_of_gradients_that_cannot_be_used_is_one_line(tmp_path, capsys):
    pickled, text, short = (tmp_path / name for name in ("pickled.npy", "text.npy", "short.npy"))
    np.save(pickled, np.array([{}, 1], object), allow_pickle=True)
    text.write_text("no array")
    np.save(short, np.ones((1, 3)))
    (tmp_path / "table.csv").write_text("1,2")
    for name, message in (
        ("missing.npy", "missing.npy: no such file"),
        ("table.csv", "table.csv: must be a .npy file"),
        ("pickled.npy", "pickled.npy: Object arrays cannot be loaded"),
        ("text.npy", "text.npy: "),
        ("short.npy", "short.npy: "),
    ):
        args = [f"--gradients={tmp_path / name}"]
        experiment.assert_refused(command, tmp_path / "out", capsys, args, message)


def test_the_hook_for_pytorch_records_what_it_says(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    page = (Path(__file__).parent.parent / "docs" / "my_loss_spikes.md").read_text()
    [code] = re.findall(r"```text\n(import itertools.*?)```", page, re.S)
    namespace = {}
    exec(code, namespace)
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(3, 2)
    batches = [(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(5)]
    count = namespace["record_gradients"](model, torch.nn.functional.mse_loss, batches, 5, 4)
    assert count == 8
    assert np.load("gradients.npy").shape == (5, 4)


def test_what_is_enough_for_every_problem_of_that_n(tmp_path, capsys):
    """n = 75, the case of a public script that set β2 = 0.9999999."""
    args = ["--new_batch_size=8", "--samples=600", "--beta1=0", "--learning_rate=0.003"]
    assert experiment.run(command, f"--out={tmp_path}", *args) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "advise.json").read_text())["whole_class"]
    assert found["num_components"] == 75
    # the best bound of the class, with D1 = 2n²: (1 − 1/ρ)², ρ = 1 + √((n − 1)(D1/n − 1))
    ratio = 1 + math.sqrt(74 * 149)
    assert 1 - found["enough"] == pytest.approx((1 - 1 / ratio) ** 2)
    assert 1 - found["counterexample"] == pytest.approx(0.99928, abs=5e-6)
    assert "0.999276" in printed
    assert "0.999999726 if" in printed
    assert "lower it first, to 0.001" in printed
    args = ["--new_batch_size=8", "--samples=600", "--noise_ratio=1", "--json=-"]
    assert experiment.run(command, f"--out={tmp_path}", *args) == 0
    assert json.loads(capsys.readouterr().out)["whole_class"]["enough"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--samples=20"], "--samples=20: fewer than two batches of 16"),
        (["--noise_ratio=5"], "--noise_ratio=5: needs --samples as well"),
        (["--samples=800", "--noise_ratio=0.5"], "--noise_ratio=0.5: must be 1 or more"),
        (["--batch_size=0"], "--batch_size=0.0 is not a positive number"),
        (["--beta2=1"], "--beta2=1.0 is outside [0, 1)"),
        (["--new_batch_size=-4"], "--new_batch_size=-4.0 is not a positive number"),
        (["--new_batch_size=1e300"], "--new_batch_size=1e+300 is 1.95e+297 times batch_size=512"),
        (["--new_batch_size=nan"], "--new_batch_size=nan is not a positive number"),
        (["--floor=2"], "--floor=2.0 is outside [0, 1)"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(command, tmp_path / "out", capsys, args, message)
