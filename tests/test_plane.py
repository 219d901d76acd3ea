"""The diagram of a finite sum of one's own: the built-in path's numbers, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from adam_transition import adam, problems
from adam_transition.problems.constructions import counterexample_table
from adam_transition.studies.phase import diagram
from adam_transition.studies.phase.figures import draw_phase_diagram
from adam_transition.studies.phase.plane import simulate_plane
from adam_transition.studies.phase.study import PhaseStudy
from adam_transition.sweeps.study import compute
from adam_transition.theory.stationary_drift import stationary_drift

N, STEPS = 7, 4000
BETA1, BETA2 = np.linspace(0, 0.9, 12), np.linspace(0, 0.96, 18)
VARIABLES = ("gap", "late_gap", "speed", "speed_error", "diverged", "undecided", "underflowed")
SLOPES = counterexample_table(N)[:, 0]


def _u(x):
    return jnp.where(x >= -1, x, 0.5 * (x + 2) ** 2 - 1.5)


def _loss(x, slope):
    return slope * _u(x)


def _own(slopes=SLOPES, loss=_loss, minimiser=-2.0, **more):
    return problems.from_loss(loss, jnp.asarray(slopes), minimiser=minimiser, **more)


def _plane(problem, x0=1.0, samplings=("cyclic",), beta1=BETA1, beta2=BETA2, **more):
    return simulate_plane(
        problem, beta1, beta2, x0=x0, samplings=samplings, **{"num_steps": STEPS, **more}
    )


def _clear(dataset, margin=0.02):
    """Cells whose drift per step is not small: no finite run decides the others."""
    return np.abs(dataset["drift"].values) > margin * N


def _assert_same_bits(one, other):
    for name in VARIABLES:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


@pytest.fixture(scope="module")
def own():
    return _plane(_own(), drift_at=1.0)


@pytest.mark.parametrize("backend", ["blocks", "xla"])
def test_built_in_problems_have_the_bits_of_the_built_in_path(tmp_path, backend, own):
    samplings = ("with_replacement", "cyclic")
    spec = diagram.PhaseDiagram(
        "counterexample", (N,), samplings, BETA1, BETA2, num_steps=STEPS, backend=backend
    )
    expected = compute(PhaseStudy(spec))[list(VARIABLES)]
    if backend == "blocks" and jax.default_backend() == "cpu":
        _assert_same_bits(_plane(problems.counterexample(N), samplings=samplings), expected)
    expected = expected.sel(sampling=["cyclic"])
    # the same problem from a loss: another gradient, so other roundings, but the same verdicts
    clear = _clear(own)
    np.testing.assert_array_equal(own["diverged"].values[clear], expected["diverged"].values[clear])
    far = own["gap"].values > 1  # where gradients are constant
    np.testing.assert_allclose(own["gap"].values[far], expected["gap"].values[far], rtol=1e-3)


def test_the_data_set_is_labelled(own):
    assert own["gap"].dims == ("sampling", "n", "beta1", "beta2")
    assert dict(own.sizes) == {"sampling": 1, "n": 1, "beta1": 12, "beta2": 18}
    assert own["n"].item() == N
    assert own["gap"].dtype == np.float32
    assert own["diverged"].dtype == bool
    for name in (*VARIABLES, "drift"):
        assert own[name].attrs["long_name"]
        assert own[name].attrs["units"] == ("1 / epoch" if name == "drift" else "1")
    assert own.attrs["num_steps"] == STEPS
    assert own.attrs["x0"] == 1.0


def test_the_figure_of_the_built_in_problems_draws_it(own):
    assert draw_phase_diagram(own).axes
    both = xr.concat([own, own.assign_coords(n=[N + 1])], "n")
    assert len(draw_phase_diagram(both).axes) == 3  # two panels and the bar


def test_the_verdict_has_the_sign_of_the_drift(own):
    clear = _clear(own, 0.05)
    np.testing.assert_array_equal(own["diverged"].values[clear], own["drift"].values[clear] > 0)
    assert 0.1 < own["diverged"].values.mean() < 0.9


def test_the_drift_is_that_of_the_table_at_the_point(own):
    hyper = adam.Hyperparameters(1 - BETA1[:, None], 1 - BETA2)
    exact = stationary_drift(SLOPES[:, None], hyper).drift[..., 0]
    # the data of the loss are float32
    np.testing.assert_allclose(own["drift"].sel(sampling="cyclic")[0], exact, rtol=1e-5, atol=1e-5)


def test_no_drift_unless_asked_for():
    assert "drift" not in _plane(_own(), num_steps=10)


@pytest.mark.parametrize("factor", [0.125, 1024.0])
def test_adam_does_not_see_the_scale_of_the_loss(factor, own):
    scaled = _plane(_own(factor * SLOPES))
    _assert_same_bits(own, scaled)  # to the bit for powers of two


def test_a_mirror_image_has_the_same_gaps(own):
    mirrored = _own(loss=lambda x, slope: _loss(-x, slope), minimiser=2.0)
    found = _plane(mirrored, -1.0, drift_at=-1.0)
    _assert_same_bits(own, found)
    np.testing.assert_allclose(own["drift"], found["drift"], rtol=1e-12)


def test_gaps_move_with_the_problem(own):
    moved = _own(loss=lambda x, slope: _loss(x - 0.5, slope), minimiser=-1.5)
    found, clear = _plane(moved, 1.5), _clear(own)
    np.testing.assert_array_equal(found["diverged"].values[clear], own["diverged"].values[clear])
    # elsewhere steps are unbounded, and roundings grow
    bounded = (own["beta1"] ** 2 < own["beta2"]).broadcast_like(own["gap"]).values
    far, one = (own["gap"].values > 1) & bounded, own
    np.testing.assert_allclose(found["gap"].values[far], one["gap"].values[far], rtol=1e-4)


def test_cyclic_order_may_begin_anywhere(own):
    rotated, clear = _plane(_own(np.roll(SLOPES, 3)), drift_at=1.0), _clear(own)
    np.testing.assert_allclose(rotated["drift"], own["drift"], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(rotated["diverged"].values[clear], own["diverged"].values[clear])


def test_bits_depend_neither_on_threads_nor_on_other_schemes(own, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    found = _plane(_own(), samplings=("with_replacement", "cyclic"))
    _assert_same_bits(own, found.sel(sampling=list(own["sampling"].values)))


def test_a_part_of_the_grid_is_the_part_of_the_diagram(own):
    found = _plane(_own(), beta1=BETA1[2:5], beta2=BETA2[::3])
    one = own.isel(beta1=slice(2, 5), beta2=slice(None, None, 3))
    # another tile, perhaps rounded differently
    np.testing.assert_allclose(found["gap"], one["gap"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["beta2"], one["beta2"])


def test_coordinates_of_a_separable_sum_go_their_own_ways(own):
    """Two equal coordinates: √2 times the gap. One more that always converges: the same verdict."""

    def pair(x, slope):
        return _loss(x[0], slope) + _loss(x[1], slope)

    def mixed(x, slope):
        return _loss(x[0], slope) + (x[1] + 2) ** 2

    one, clear = own, _clear(own)
    at = np.ones(2)
    found = _plane(_own(loss=pair, shape=(2,), minimiser=-2 * at), at, drift_at=at)
    np.testing.assert_allclose(found["gap"], np.sqrt(2) * one["gap"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["drift"], one["drift"], rtol=1e-12)
    found = _plane(_own(loss=mixed, shape=(2,), minimiser=-2 * at), at, drift_at=at)
    np.testing.assert_array_equal(found["diverged"].values[clear], one["diverged"].values[clear])
    np.testing.assert_allclose(found["drift"], np.maximum(one["drift"], -N), rtol=1e-12)


def test_where_d0_is_positive_settling_beside_the_minimiser_is_not_divergence():
    centres = np.array([0.0, 0, 0, 0, 1])
    quadratic = problems.from_loss(
        lambda x, b: (x - b) ** 2 / 2, jnp.asarray(centres), minimiser=0.2
    )
    found = _plane(quadratic, 1.5)
    bounded = found["beta1"] ** 2 < found["beta2"]
    assert not found["diverged"].where(bounded, other=False).any()
    assert found["gap"].where(bounded).max() > 0.1  # the median, not the mean
    built_in = _plane(problems.nonrealizable_quadratics(5), np.array([1.5]))
    np.testing.assert_allclose(built_in["gap"], found["gap"], rtol=1e-3, atol=1e-3)


def test_a_run_that_is_not_finite_has_diverged():
    steep = problems.from_loss(lambda x, s: jnp.exp(s * x**2), jnp.ones(3), minimiser=0.0)
    found = _plane(steep, 20.0, num_steps=5)  # exp(400) is not a float32
    assert found["diverged"].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta1": [0.5, 1.0]}, r"beta1=1: values must lie in \[0, 1\)"),
        ({"beta2": [-0.5, 0.5]}, r"beta2=-0.5: values must lie in \[0, 1\)"),
        ({"beta2": [0.5, np.nan]}, "beta2 of shape .2,.: must be an ascending grid"),
        ({"beta2": [0.5, 0.5]}, "beta2 of shape .2,.: must be an ascending grid"),
        ({"beta1": 0.5}, r"beta1 of shape \(\): must be an ascending grid, one axis"),
        ({"beta1": []}, "beta1 of shape .0,.: must be"),
        ({"x0": [1.0, 1.0]}, r"x0=\[1.0, 1.0\]: must be a finite point of shape \(\)"),
        ({"x0": np.inf}, "x0=inf: must be a finite point"),
        ({"x0": -2.0}, "x0=-2.0: must not be the minimiser"),
        ({"drift_at": [1.0]}, r"drift_at=\[1.0\]: must be a finite point of shape \(\)"),
        ({"drift_at": -2.0}, "drift_at=-2.0: must not be the minimiser"),
        ({"problem": problems.reddi(5), "x0": 2.0}, "x0=2.0: must be feasible; the closest is 1.0"),
        ({"problem": _own(minimiser=None)}, "its minimiser is None.*from_loss"),
        ({"samplings": "cyclic"}, "samplings='cyclic': must be a sequence of"),
        ({"samplings": ()}, r"samplings=\(\): needs one or more different schemes"),
        ({"samplings": ("cyclic",) * 2}, "samplings=.*: needs one or more different"),
        ({"samplings": ("sorted",)}, "samplings='sorted' is not one of cyclic, random_shuffling"),
        ({"schedule": "cosine"}, "schedule='cosine' is not one of constant, inverse_sqrt"),
        ({"initialization": "warm"}, "initialization='warm' is not one of zero"),
        ({"step_size": 0.0}, "step_size=0.0: must be a finite number above 0"),
        ({"epsilon": -1.0}, "epsilon=-1.0: must be a finite number, 0 or more"),
        ({"num_steps": 0}, "num_steps=0: must be an integer in"),
        ({"num_steps": 100.0}, "num_steps=100.0: must be an integer in"),
        ({"seed": 1.5}, "seed=1.5: must be an integer in"),
        ({"seed": 2**70}, "seed=.*: must be an integer in"),
        ({"step_size": np.ones(2)}, r"step_size of shape .2,.: must be one number"),
        ({"x0": "a"}, "x0=.a.: must be a real number"),
        ({"x0": np.array(1j)}, "x0=.*: must be a real number"),
        ({"beta1": ["a"]}, "beta1=..a..: must be a real number"),
        ({"samplings": None}, "samplings=None: must be a sequence"),
    ],
)  # fmt: skip
def test_errors_name_the_argument_its_value_and_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        _plane(**{"problem": _own(), **arguments})
