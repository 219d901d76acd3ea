"""Runs behind the theorems: against one run by hand, and rates that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling
from adam_transition.problems import Member
from adam_transition.studies.runs import OCTAVES, record_every, run_members
from adam_transition.theory import convergence


def _member(problem):
    return Member(problem, problem.problem_class(), exact=True)


def test_stationarity_is_that_of_a_run_by_hand():
    problem = problems.nonrealizable_quadratics(3)
    hyper = adam.Hyperparameters(np.array([0.5, 0.1]), np.array([0.1, 0.01]))
    runs = run_members(
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
        np.testing.assert_allclose(runs.stationarity[0, 0, j], expected, rtol=1e-9)
        recorded = np.array(xs)[2::3]
        windows = [recorded[50:], recorded[12:25], recorded[3:6]]
        expected = [[window.mean()] for window in windows]
        np.testing.assert_allclose(runs.settled[0, 0, j], expected, rtol=1e-9)


def test_records_are_starts_of_epochs_of_every_n():
    assert record_every(10**6, [3, 5, 10, 20]) % 60 == 0
    with pytest.raises(ValueError, match="steps=100: needs at least 1920"):
        record_every(100, [3, 5, 10, 20])


def test_problems_of_one_stack_do_not_meet():
    """n = 3 beside n = 6 gives the bits of n = 3 beside n = 12: padding is not seen."""
    hyper = adam.Hyperparameters(np.array([0.5]), np.array([0.1]))

    def stationarity(other):
        members = [_member(problems.nonrealizable_quadratics(n)) for n in (3, other)]
        return run_members(
            members, hyper, "random_shuffling", num_steps=1200, step_size=0.1, num_seeds=2, seed=5,
            starts=[np.array([1.0])] * 2,
        ).stationarity[0]  # fmt: skip

    np.testing.assert_allclose(stationarity(6)[..., -1], stationarity(12)[..., -1], rtol=1e-4)


def test_sign_descent_has_the_rate_of_its_step_size():
    """β1 = β2 = 0 on one quadratic: |x| is at most the last step, so the slope is −1/2."""
    problem = problems.quadratics([1.0] * 3, [0.3] * 3)
    hyper = adam.Hyperparameters(np.array([1.0]), np.array([1.0]))
    runs = run_members(
        [_member(problem)], hyper, "with_replacement", num_steps=300_000, step_size=0.1,
        num_seeds=3, seed=0, starts=[np.array([1.0])],
    )  # fmt: skip
    gradient = runs.stationarity[0, 0, 0] * 2 * np.sqrt(3)
    assert (
        gradient[runs.steps > 1000] <= 0.1 / np.sqrt(runs.steps[runs.steps > 1000]) + 1e-6
    ).all()


@pytest.mark.parametrize("exponent", [-0.5, -0.25, 0.0])
def test_rate_finds_a_planted_exponent_within_its_error(exponent):
    rng = np.random.default_rng(0)
    shared, own = rng.standard_normal((16, 400, 1)), rng.standard_normal((16, 400, 5))
    values = 3 * 2.0 ** (exponent * np.arange(5)) * np.exp(0.1 * shared + 0.02 * own)
    found = convergence.rate(values)
    spread = np.sqrt((found.stderr**2).mean())
    assert abs(found.slope.mean() - exponent) < 4 * spread / np.sqrt(400)
    assert found.slope.std() / spread == pytest.approx(1, abs=0.15)


def test_nothing_is_shown_by_runs_that_overflow_or_lie_on_the_minimiser():
    for spoilt in (np.inf, np.nan, 0.0):
        values = np.ones((4, 2, 5))
        values[:, 0, -1] = spoilt
        found = convergence.rate(values)
        assert found.slope.tolist() == [np.inf, 0.0]
        assert (found.stderr == 0).all()


def _reference(curvatures, p, q, stream, eta0):
    """Adam on ½ h x², from x0 = 1.5, in extended precision with its range of 10^(±4932)."""
    x, m, v = np.longdouble(1.5), np.longdouble(0), np.longdouble(0)
    found = []
    for k, i in enumerate(stream):
        g = np.longdouble(curvatures[i]) * x
        m, v = m - p * m + p * g, v - q * v + q * g * g
        x = x - np.longdouble(eta0) / np.sqrt(np.longdouble(k + 1)) * m / np.sqrt(v)
        found.append(x)
    return np.array(found)


def test_a_moving_unit_resolves_what_no_float_does():
    """Near β2 = 1 a run comes to x* nearer than 1e-308 and goes away again; a float stays there."""
    problem = problems.realizable_quadratics(5)
    hyper = adam.Hyperparameters(np.array([0.6]), np.array([0.002]))

    def run(**settings):
        return run_members(
            [_member(problem)], hyper, "with_replacement", num_steps=12_000, step_size=0.1,
            num_seeds=1, seed=0, starts=[np.array([1.5])], **settings,
        )  # fmt: skip

    with jax.enable_x64(True):
        stream = np.concatenate(
            [
                sampling.indices(
                    "with_replacement", sampling.stream_key(0), np.int32(start), 1000, 5,
                    max_components=5,
                )
                for start in range(0, 12_000, 1000)
            ]
        )  # fmt: skip
    expected = _reference(
        np.asarray(problem.hessians)[:, 0, 0], np.longdouble(0.6), np.longdouble(0.002), stream, 0.1
    )
    assert np.log10(np.abs(expected).min()) < -400
    assert np.abs(expected[-1]) > 1e-300
    moving, plain = run(dtype="float64", moves_unit=True), run(dtype="float64")
    wanted = np.abs(expected[moving.steps - 1])
    # what is below the range is written as 0; once the run is back it hops about x* chaotically
    told = (wanted > 1e-250) & (moving.steps < np.abs(expected).argmin())
    assert told.sum() > 20
    assert np.abs(moving.iterates[0, 0, 0, -1]) > 1e-300
    np.testing.assert_allclose(
        np.log(np.abs(moving.iterates[0, 0, 0][told])),
        np.log(wanted[told].astype(float)),
        rtol=1e-3,
    )
    assert not moving.arrived.any()
    assert plain.arrived.all()
    assert plain.iterates[0, 0, 0, -1] == 0


def test_a_moving_unit_changes_no_run_that_needs_none():
    member = problems.centred(_member(problems.counterexample(5)))
    hyper = adam.Hyperparameters(np.array([1.0, 0.5]), np.array([0.5, 0.3]))

    def run(moves_unit):
        return run_members(
            [member], hyper, "random_shuffling", num_steps=3000, step_size=0.1, num_seeds=2,
            seed=1, starts=[np.array(1.5)], dtype="float64", moves_unit=moves_unit,
        )  # fmt: skip

    one, other = run(True), run(False)
    np.testing.assert_allclose(one.stationarity[:, :, 0], other.stationarity[:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(one.settled[:, :, 0], other.settled[:, :, 0], rtol=1e-6, atol=1e-9)
    # the second cell hops about x* chaotically once it is there: rounding grows
    np.testing.assert_allclose(one.stationarity[..., :24], other.stationarity[..., :24], rtol=1e-6)
    records = one.steps[-1] // record_every(3000, [5])
    assert one.mean_stationarity.shape == (1, 2, 2, OCTAVES)
    assert records >= 2**OCTAVES
    with pytest.raises(ValueError, match="needs a problem with its minimiser at 0"):
        run_members(
            [_member(problems.counterexample(5))], hyper, "cyclic", num_steps=3000, step_size=0.1,
            num_seeds=1, seed=0, starts=[np.array(1.0)], moves_unit=True,
        )  # fmt: skip


def test_where_the_float_absorbs_the_rate_is_seen_in_z():
    """On the counterexample float32 iterates land on x* = −2 exactly; z = x + 2 does not."""
    made = problems.divergence_construction(problems.ProblemClass(5, 1, 0, 50))
    hyper = adam.Hyperparameters(np.array([0.5]), np.array([0.1]))

    def run(member, start, moves_unit):
        return run_members(
            [member], hyper, "with_replacement", num_steps=100_000, step_size=0.1, num_seeds=6,
            seed=0, starts=[np.array(start)], moves_unit=moves_unit,
        )  # fmt: skip

    there, centred = _member(made), problems.centred(_member(made))
    absorbed, resolved = run(there, -0.5, False), run(centred, 1.5, True)
    assert absorbed.arrived.any()
    assert not resolved.arrived.any()
    assert (resolved.mean_stationarity > 0).all()


def test_mean_over_components_counts_the_first_n():
    problem = problems.counterexample(4)
    for n in (3, 4):
        found = problems.mean_over_components(problem.gradient, jnp.float32(0.0), n, 9)
        table = problems.component_gradients(problem, jnp.float32(0.0), n)
        assert float(found) == pytest.approx(float(table.mean()), rel=1e-6)


def test_streams_of_seeds_differ():
    hyper = adam.Hyperparameters(np.array([0.5]), np.array([0.1]))
    runs = run_members(
        [_member(problems.nonrealizable_quadratics(5))], hyper, "with_replacement",
        num_steps=2000, step_size=0.1, num_seeds=3, seed=0, starts=[np.array([1.0])],
    )  # fmt: skip
    assert len(np.unique(runs.settled[..., 0, :])) == 3
