"""The verdict: against the exact drift on bounded sets and off them, and its error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling, simulate
from adam_transition.studies.phase import backends, diagram, simulation
from adam_transition.studies.phase import drift as phase_drift
from adam_transition.studies.phase.plane import simulate_plane
from adam_transition.sweeps import sweep
from adam_transition.theory.stationary_drift import stationary_drift

SCHEMES = ("cyclic", "random_shuffling", "with_replacement")


def _diagram(scheme, **settings):
    """Results of one table by name, each (n, β1, β2), and the exact drift."""
    spec = diagram.PhaseDiagram(samplings=(scheme,), backend="blocks", **settings)
    found = {}

    def write(block, values):
        for name, value in values.items():
            found.setdefault(name, np.empty(spec.table, value.dtype))[block] = value

    sweep.run(
        backends.program(spec, scheme),
        simulation.rows(spec, None),
        simulation.cells(spec),
        tile=backends.tile_shape(spec),
        chunk=spec.table,
        write=write,
    )
    dims = ("sampling", *spec.dims[1:])
    dataset = diagram.coordinates(spec)
    for name, values in found.items():
        shape = (1, len(spec.num_components), spec.beta1.size, spec.beta2.size)
        dataset[name] = dims, values.reshape(shape)
    drifts = [
        phase_drift.drift_of_cells(
            spec, scheme, i, phase_drift.frozen_table(spec.problem_at(n, None))
        ).drift
        for i, n in enumerate(spec.num_components)
    ]
    dataset["drift"] = dims, np.stack(drifts)[None]
    return dataset


@pytest.mark.parametrize(("schedule", "step_size"), [("inverse_sqrt", 0.1), ("constant", 0.001)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_reddis_diagrams_it_has_the_sign_of_the_drift(scheme, schedule, step_size):
    """Flagfiles phase_reddi and phase_reddi_constant on a coarser grid; none may be wrong."""
    grid = np.linspace(0, 0.984375, 16)
    found = _diagram(
        scheme, problem="reddi", num_components=(3, 10, 30), beta1=grid, beta2=grid,
        x0=0.0, schedule=schedule, step_size=step_size,
    )  # fmt: skip
    compared = phase_drift.compare(found, 0.01)
    assert (compared["agree"] >= 0.995).all()
    assert (compared["disagree"] == 0).all()
    assert 0.05 < float(found["diverged"].mean()) < 0.95
    stuck = (found["late_gap"] > 1.9) & (found["drift"] > 0)  # on the wall farthest from x*
    assert stuck.sum() > 30
    assert found["diverged"].where(stuck, other=True).mean() > 0.995


@pytest.mark.parametrize("x0", [1.0, 0.0, 0.5])
def test_on_the_diagram_of_shi_et_al(x0):
    """ICLR 2021: C·x once in C steps, −x otherwise, β1 = 0, η = 1/√t, β2 = 1 − 10^(−i/10)."""
    found = _diagram(
        "cyclic", problem="reddi", num_components=tuple(range(2, 33)), beta1=np.zeros(1),
        beta2=1 - 10 ** (-np.arange(1, 41) / 10), x0=x0, step_size=1.0, num_steps=20_000,
    )  # fmt: skip
    far = phase_drift.compare(found, 0.01)
    assert (far["agree"] == 1).all()
    assert (far["counted"] >= 15).all()
    everywhere = phase_drift.compare(found)
    assert (everywhere["disagree"] == 0).all()  # and few are undecided:
    assert float((everywhere["undecided"] * everywhere["counted"]).sum()) < 0.03 * 31 * 40


def test_on_the_toy_problem_of_adopt():
    """Taniguchi et al. (2024): k²·x with probability 1/k, −k·x otherwise, on [−1, 1]; k = 10, 50.

    Adam does not see the factor k: slopes k and −1.
    """
    found = _diagram(
        "with_replacement", problem="reddi", num_components=(10, 50),
        beta1=np.array([0.0, 0.5, 0.9]),
        beta2=np.array([0.1, 0.5, 0.9, 0.95, 0.999, 0.9999]), x0=0.0, step_size=0.01,
        schedule="constant",
    )  # fmt: skip
    compared = phase_drift.compare(found, 0.01)
    assert (compared["agree"] == 1).all()
    assert found["diverged"].sel(n=50, beta2=[0.1, 0.5, 0.9, 0.95]).all()  # 1 − β2* ≈ 2/k²
    assert found["diverged"].sel(n=10, beta2=[0.1, 0.5, 0.9, 0.95]).all()
    assert not found["diverged"].sel(n=10, beta2=[0.999, 0.9999]).any()


def test_at_zero_drift_few_runs_are_called_anything():
    """Slopes ±2, ±1 drawn with replacement: D = 0 by symmetry. Each side is to err in 5 %."""
    slopes, runs = jnp.array([2.0, -2.0, 1.0, -1.0]), 400
    problem = problems.from_loss(lambda x, s: s * x, slopes, minimiser=-1000.0)
    problem = problems.as_arrays(problem, np.float32)

    @jax.jit
    @jax.vmap
    def verdict(key):
        trace = simulate.simulate(
            problem, adam.hyperparameters(0.5, 0.7), jnp.float32(0), 0.1, key,
            method=simulate.Method("with_replacement"), num_steps=6400, record_every=100,
            max_components=4, controls=slopes,
        )  # fmt: skip
        step_sizes = adam.step_size("inverse_sqrt", 0.1, trace.step - 1)
        return simulate.judge(trace, problem, step_sizes=step_sizes, memory=2.0)

    found = verdict(jax.random.split(sampling.stream_key(0), runs))
    allowed = 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    inward = ~(found.diverged | found.undecided)
    for share in (found.diverged.mean(), inward.mean()):
        assert 0.005 < share < allowed
    # the interval is as wide as the speeds are scattered: their mean is 0
    ratio = float(found.speed.std() / (found.speed_error / 1.77).mean())
    assert 0.8 < ratio < 1.2


def test_a_control_takes_the_noise_of_the_draws_out():
    """Slopes 3, −1, −1: the error shrinks severalfold, and the speed is still D/n."""
    slopes = np.array([3.0, -1.0, -1.0])
    problem = problems.as_arrays(problems.reddi_mod3(), np.float32)
    hyper = adam.hyperparameters(0.0, 0.6)
    exact = stationary_drift(slopes[:, None], hyper, "with_replacement").drift[0] / 3
    errors = {}
    for name, controls in (("plain", None), ("controlled", jnp.array(slopes - slopes.mean()))):
        trace = jax.jit(
            lambda controls: simulate.simulate(
                problem, hyper, jnp.float32(0), 0.1, sampling.stream_key(3),
                method=simulate.Method("with_replacement"), num_steps=40_000, record_every=625,
                max_components=3, controls=controls,
            )
        )(controls)  # fmt: skip
        step_sizes = adam.step_size("inverse_sqrt", 0.1, trace.step - 1)
        verdict = simulate.judge(trace, problem, step_sizes=step_sizes)
        errors[name] = float(verdict.speed_error)
        assert abs(float(verdict.speed) - exact) < 2 * errors[name]
    assert errors["controlled"] < errors["plain"] / 3


def test_what_the_projection_took_back_is_recorded():
    """On [−1, 1] at D > 0: displacement plus reaction is that of the free run, to rounding."""
    slopes = jnp.array([5.0, -1.0, -1.0, -1.0, -1.0])
    traces = []
    for problem in (problems.reddi(5), problems.from_loss(lambda x, s: s * x, slopes)):
        with jax.enable_x64(True):
            trace = simulate.simulate(
                problems.as_arrays(problem, np.float64), adam.hyperparameters(0.3, 0.5),
                jnp.float64(0), 0.5, sampling.stream_key(0), method=simulate.Method("cyclic"),
                num_steps=503, record_every=50, max_components=5,
            )  # fmt: skip
        traces.append(jax.tree.map(np.asarray, trace))
    walled, free = traces
    assert free.reaction is None
    moved = np.diff(walled.x, prepend=0.0) + walled.reaction
    np.testing.assert_allclose(moved, np.diff(free.x, prepend=0.0), rtol=1e-10, atol=1e-10)
    assert float(walled.x.max()) <= 1
    assert float(np.sum(walled.reaction)) > 1


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling"])
def test_a_run_without_drift_is_undecided(scheme):
    """Sign-SGD with half of the slopes negative stands still: it neither arrives nor leaves."""
    problem = problems.slope_table([0.51, 0.51, -0.01, -0.01])
    found = simulate_plane(problem, [0.0], [0.0], x0=1.0, samplings=[scheme], progress=False)
    assert found["undecided"].all()
    assert not found["diverged"].any()


@pytest.mark.parametrize(("x0", "diverged"), [(1.0, True), (-1.0, True), (-1.9, False)])
def test_a_run_that_is_trapped_near_the_minimiser_has_converged(x0, diverged):
    """n = 3, a = 1, cyclic, (0.3, 0.1): D = +0.164, but from within a step x* attracts."""
    found = simulate_plane(
        problems.counterexample(3, 1), [0.3], [0.1], x0=x0, samplings=["cyclic"],
        num_steps=200_000, drift_at=1.0, dtype="float64", progress=False,
    )  # fmt: skip
    assert found["drift"].item() == pytest.approx(0.164, abs=1e-3)
    assert found["diverged"].item() == diverged
    assert not found["undecided"].item()


def test_a_run_that_passes_the_minimiser_has_not_arrived():
    """It comes down from the left, where all slopes agree, and leaves to the right, where D > 0."""
    problem = problems.from_loss(
        lambda x, s: jnp.where(x < 0, -x, s * x), jnp.array([3.0, -1.0, -1.0]), minimiser=0.0
    )
    found = simulate_plane(
        problem, [0.0], [0.1, 0.95], x0=-3.0, samplings=["cyclic"], progress=False
    )
    assert found["diverged"].values.ravel().tolist() == [True, False]
    assert not found["undecided"].any()
    # the same trace, with the arrival rule of problems with D0 = 0
    steps = np.arange(1, 65) * 100
    course = simulate.Trace(steps, jnp.linspace(-3, 9, 64))
    verdict = simulate.judge(course, problem, step_sizes=0.01 / np.sqrt(steps / 6400), arrival=0.3)
    assert verdict.diverged


def test_few_steps_decide_nothing():
    found = simulate_plane(
        problems.counterexample(20), [0.0, 0.9], [0.1, 0.5, 0.9], x0=1.0, num_steps=10,
        samplings=["cyclic", "with_replacement"], progress=False,
    )  # fmt: skip
    assert found["undecided"].all()


def test_an_own_class_with_a_wall_is_judged_like_the_built_in_problem():
    """Started at the wall, without a `problem_class`: same verdicts."""
    slopes = jnp.array([10.0] + [-1.0] * 9)
    own = problems.from_loss(lambda x, s: s * x, slopes, minimiser=-1.0, bounds=(-1, 1))
    clipped = problems.from_loss(
        lambda x, s: s * x, slopes, minimiser=-1.0, project=lambda x: jnp.clip(x, -1, 1)
    )
    for x0 in (1.0, 0.99, 0.0, -0.5):
        planes = [
            simulate_plane(
                problem, [0.0], [0.1, 0.5, 0.9, 0.99], x0=x0, samplings=["cyclic"], step_size=1.0,
                num_steps=5000, progress=False,
            )
            for problem in (own, clipped, problems.reddi(10))
        ]  # fmt: skip
        for plane in planes:
            assert plane["diverged"].values.ravel().tolist() == [True, True, True, False]
            assert not plane["undecided"].any()
            np.testing.assert_allclose(plane["gap"], planes[-1]["gap"], atol=1e-5)


def test_far_centres_do_no_harm():
    """Nine components −(x − 10d/9)²/2 and one 10(x − d)²/2: the minimiser is 0 for every d."""
    for d in (0.0, 1.0):
        problem = problems.quadratics([-1.0] * 9 + [10.0], [10 / 9 * d] * 9 + [d])
        np.testing.assert_allclose(problem.minimiser, 0, atol=1e-12)
        found = simulate_plane(
            problem, [0.0], [0.999], x0=[3.0], samplings=["cyclic"], dtype="float64",
            num_steps=20_000, progress=False,
        )  # fmt: skip
        assert not found["diverged"].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_v_underflows_is_reported(dtype):
    """Gradients of 1e-22: their squares are 0 in float32, and Adam stands still."""
    problem = problems.from_loss(
        lambda x, s: 1e-22 * s * x, jnp.array([3.0, -1.0, -1.0]), minimiser=-1.0, bounds=(-1, 1)
    )
    found = simulate_plane(
        problem, [0.0, 0.5], [0.1, 0.9], x0=1.0, samplings=["cyclic"], num_steps=2000, dtype=dtype,
        progress=False,
    )  # fmt: skip
    assert found["gap"].dtype == dtype
    assert (found["underflowed"] == (dtype == "float32")).all()
    if dtype == "float64":
        scaled = simulate_plane(
            problems.reddi_mod3(), [0.0, 0.5], [0.1, 0.9], x0=1.0, samplings=["cyclic"],
            num_steps=2000, dtype=dtype, progress=False,
        )  # fmt: skip
        np.testing.assert_array_equal(found["diverged"], scaled["diverged"])
        assert not scaled["underflowed"].any()


def test_v_that_is_0_between_records_is_seen():
    """The hit comes last in the epoch and at every record; before it v has decayed to 0."""
    slopes = jnp.array([1e-21, -1e-22, 1e-18])
    problem = problems.from_loss(lambda x, s: s * x, slopes, minimiser=-1.0, bounds=(-1, 1))
    settings = {
        "method": simulate.Method("cyclic"), "num_steps": 30, "record_every": 3,
        "max_components": 3,
    }  # fmt: skip
    problem = problems.as_arrays(problem, np.float32)
    hyper = adam.hyperparameters(0.0, 1e-3)
    arguments = problem, hyper, jnp.float32(0), 0.1, sampling.stream_key(0)
    assert not simulate.simulate(*arguments, **settings).underflowed.any()
    assert simulate.simulate(*arguments, **settings, watch_underflow=True).underflowed.all()
    plane = simulate_plane(
        problem, [0.0], [1e-3], x0=0.5, samplings=["cyclic"], num_steps=30, progress=False
    )
    assert plane["underflowed"].all()


def _cell(problem, **settings):
    """The verdict of the one cell of a diagram, by sampling scheme."""
    plane = simulate_plane(problem, [0.0], settings.pop("beta2"), progress=False, **settings)
    words = np.where(plane["diverged"], "diverged", np.where(plane["undecided"], "?", "converged"))
    return set(words.ravel()), plane


@pytest.mark.parametrize(
    ("loss", "data", "x0"),
    [
        (lambda x, b: (x - b) ** 2 / 2, np.array([0.0, 1.0, 0.5, np.nan]), 2.0),
        # a where whose other branch has the gradient NaN
        (lambda x, b: jnp.where(x > 0, b * x * jnp.sqrt(x), 0.0), np.array([1.0, 2.0]), 3.0),
    ],
)
def test_a_gradient_that_is_no_number_does_not_converge(loss, data, x0):
    problem = problems.from_loss(loss, data, minimiser=0.0, bounds=(-10.0, 10.0))
    settings = {"num_steps": 5000, "samplings": ["random_shuffling"]}
    found, plane = _cell(problem, beta2=[0.9], x0=x0, **settings)
    assert found == {"diverged"}
    assert plane["gap"].isnull().all()


@pytest.mark.parametrize("constrained", [False, True])
def test_one_coordinate_that_leaves_is_not_hidden_by_another(constrained):
    """The first comes in from far, the second is the counterexample's: D > 0 there."""
    slopes = np.full(10, -1 / 81)
    slopes[0] = 1 + 9 / 81

    def loss(x, slope):
        end = x[1] if constrained else jnp.where(x[1] >= -1, x[1], (x[1] + 2) ** 2 / 2 - 1.5)
        return jnp.abs(x[0]) + slope * end

    problem = problems.from_loss(
        loss, slopes, shape=(2,), minimiser=np.array([0.0, -1.0 if constrained else -2.0]),
        bounds=(np.array([-200.0, -1.0]), np.array([200.0, 1.0])) if constrained else None,
    )  # fmt: skip
    settings = {"num_steps": 5000, "samplings": ["cyclic", "with_replacement"]}
    found, plane = _cell(problem, beta2=[0.3], x0=[100.0, 1.0], drift_at=[100.0, 0.9], **settings)
    assert (plane["drift"] > 0).all()
    assert (plane["speed"] < 0).all()
    assert found == {"?"}
    settings["samplings"] = ["cyclic"]
    assert _cell(problem, beta2=[0.3], x0=[0.1, 0.9], **settings)[0] == {"diverged"}
    # and where the second comes in as well
    assert _cell(problem, beta2=[0.99], x0=[3.0, 0.9], **settings)[0] == {"converged"}


def test_a_step_as_long_as_the_way_proves_nothing():
    settings = {"beta2": [0.1], "samplings": ["cyclic"]}
    found, plane = _cell(problems.reddi(10), x0=1.0, step_size=30.0, num_steps=100, **settings)
    assert (plane["late_gap"] > 1).all()
    assert found == {"?"}
    for steps in (1, 3):
        found, _ = _cell(problems.reddi(10), x0=-0.95, num_steps=steps, **settings)
        assert found == {"?"}, steps


def test_squares_that_overflow_are_told():
    problem = problems.from_loss(
        lambda x, b: b * (x - 1) ** 2, np.array([1e20, 2e20]), minimiser=1.0
    )
    for dtype, overflows in (("float32", True), ("float64", False)):
        settings = {"num_steps": 500, "dtype": dtype, "samplings": ["cyclic"]}
        found, plane = _cell(problem, beta2=[0.9], x0=3.0, **settings)
        assert (plane["underflowed"] == overflows).all()
        assert ("converged" in found) != overflows
