"""Runs behind the theorems: against one run by hand, and rates that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, bounds, problems, theorem_runs
from adam_transition.problems import Member


def _member(problem):
    return Member(problem, problem.problem_class(), exact=True)


def test_progress_is_that_of_a_run_by_hand():
    problem = problems.nonrealizable_quadratics(3)
    hyper = adam.Hyperparameters(np.array([0.5, 0.1]), np.array([0.1, 0.01]))
    runs = theorem_runs.run(
        [_member(problem)], hyper, "cyclic", num_steps=300, step_size=0.1, num_seeds=1, seed=0,
        starts=[np.array([1.5])], dtype="float64",
    )  # fmt: skip
    d0, d1 = float(problem.problem_class().d0), float(problem.problem_class().d1)
    for j, (p, q) in enumerate(((0.5, 0.1), (0.1, 0.01))):
        x, m, v, found, xs = 1.5, 0.0, 0.0, {}, []
        for k in range(300):
            g = x - (1.0 if k % 3 == 2 else 0.0)
            m, v = m - p * m + p * g, v - q * v + q * g * g
            x -= 0.1 / np.sqrt(k + 1) * m / np.sqrt(v)
            norm = abs(x - 1 / 3)
            found[k + 1] = min(norm**2 / np.sqrt(d0), norm / (2 * np.sqrt(d1)))
            xs.append(x)
        expected = [found[step] for step in runs.steps]
        np.testing.assert_allclose(runs.progress[0, 0, j], expected, rtol=1e-9)
        recorded = np.array(xs)[2::3]
        np.testing.assert_allclose(runs.settled[0, 0, j, 0], recorded[50:].mean(), rtol=1e-9)


def test_records_are_starts_of_epochs_of_every_n():
    assert theorem_runs.record_every(10**6, [3, 5, 10, 20]) % 60 == 0
    with pytest.raises(ValueError, match="steps=100: needs at least 1920"):
        theorem_runs.record_every(100, [3, 5, 10, 20])


def test_problems_of_one_stack_do_not_meet():
    """n = 3 beside n = 6 gives the bits of n = 3 beside n = 12: padding is not seen."""
    hyper = adam.Hyperparameters(np.array([0.5]), np.array([0.1]))

    def progress(other):
        members = [_member(problems.nonrealizable_quadratics(n)) for n in (3, other)]
        return theorem_runs.run(
            members, hyper, "random_shuffling", num_steps=1200, step_size=0.1, num_seeds=2, seed=5,
            starts=[np.array([1.0])] * 2,
        ).progress[0]  # fmt: skip

    np.testing.assert_allclose(progress(6)[..., -1], progress(12)[..., -1], rtol=1e-4)


def test_sign_descent_has_the_rate_of_its_step_size():
    """β1 = β2 = 0 on one quadratic: |x| is at most the last step, so the slope is −1/2."""
    problem = problems.quadratics([1.0] * 3, [0.3] * 3)
    hyper = adam.Hyperparameters(np.array([1.0]), np.array([1.0]))
    runs = theorem_runs.run(
        [_member(problem)], hyper, "with_replacement", num_steps=300_000, step_size=0.1,
        num_seeds=3, seed=0, starts=[np.array([1.0])],
    )  # fmt: skip
    gradient = runs.progress[0, 0, 0] * 2 * np.sqrt(3)
    assert (
        gradient[runs.steps > 1000] <= 0.1 / np.sqrt(runs.steps[runs.steps > 1000]) + 1e-6
    ).all()


@pytest.mark.parametrize("exponent", [-0.5, -0.25, 0.0])
def test_rate_finds_a_planted_exponent_within_its_error(exponent):
    rng = np.random.default_rng(0)
    steps = np.geomspace(1e3, 1e6, 40)
    shared, own = rng.standard_normal((16, 200, 1)), rng.standard_normal((16, 200, 40))
    noise = np.exp(0.1 * shared + 0.02 * own)
    values = 3 * steps**exponent * noise
    found = bounds.rate(values, steps)
    # the running minimum bends a flat line down a little
    assert np.abs(found.slope - exponent).max() < 0.02
    spread = found.slope.std() / np.sqrt((found.stderr**2).mean())
    assert 0.5 < spread < 1.5


def test_rate_of_runs_that_overflow():
    values = np.ones((4, 2, 10))
    values[1, 0, 3:] = np.nan
    found = bounds.rate(values, np.geomspace(1, 100, 10))
    assert np.isfinite(found.slope).all()  # the minimum was reached before
    values[1, 0] = np.inf
    assert bounds.rate(values, np.geomspace(1, 100, 10)).slope[0] == np.inf
    values[:, 1, -1] = 0
    assert bounds.rate(values, np.geomspace(1, 100, 10)).slope[1] == -np.inf


def test_mean_over_components_counts_the_first_n():
    problem = problems.counterexample(4)
    for n in (3, 4):
        found = problems.mean_over_components(problem.gradient, jnp.float32(0.0), n, 9)
        table = problems.component_gradients(problem, jnp.float32(0.0), n)
        assert float(found) == pytest.approx(float(table.mean()), rel=1e-6)


def test_streams_of_seeds_differ():
    hyper = adam.Hyperparameters(np.array([0.5]), np.array([0.1]))
    runs = theorem_runs.run(
        [_member(problems.nonrealizable_quadratics(5))], hyper, "with_replacement",
        num_steps=2000, step_size=0.1, num_seeds=3, seed=0, starts=[np.array([1.0])],
    )  # fmt: skip
    assert len(np.unique(runs.settled)) == 3
