"""The (β1, β2) diagram of any finite sum, in memory: `phase_diagram` for a problem of your own.

The grid is cut, simulated and judged by the same programs as for built-in problems, so the same
problem gives the same bits.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float, Shaped
from tqdm import tqdm

from adam_transition import adam, checks, kernels, problems, sampling, simulate
from adam_transition.optimizers import ADAM, Factory, Optimizer, resolved
from adam_transition.studies.phase import backends, diagram, simulation
from adam_transition.studies.phase import drift as phase_drift
from adam_transition.sweeps import store, sweep

_VANISHES = 1e-5  # gradients at x* below this multiple of those at x0 count as zero


def simulate_plane(
    problem: problems.FiniteSum,
    beta1: Shaped[ArrayLike, " B1"] | Sequence[float],
    beta2: Shaped[ArrayLike, " B2"] | Sequence[float],
    *,
    x0: Shaped[ArrayLike, "..."] | Sequence[float],
    samplings: Sequence[sampling.Sampling] = ("cyclic", "random_shuffling", "with_replacement"),
    step_size: float = 0.1,
    num_steps: int = 50_000,
    epsilon: float = 0.0,
    schedule: adam.Schedule = "inverse_sqrt",
    initialization: adam.Initialization = "zero",
    seed: int = 0,
    dtype: str = "float32",
    drift_at: Shaped[ArrayLike, "..."] | Sequence[float] | None = None,
    optimizer: Optimizer | Factory | str = ADAM,
    progress: bool = True,
) -> xr.Dataset:
    """Runs Adam, or another optimiser, from x0 at every (β1, β2) of a grid and judges every run.

    Problems run in a kernel (`kernels`) if their gradient can be written out in single numbers and
    a test compiles it; on GPUs only one-dimensional ones. All others run in XLA. Cells of one
    sampling scheme share their index stream.

    A run is judged by where it ends and by the push of its steps before projection
    (`simulate.judge`): it has diverged, it has converged, or it is undecided. If all ∇f_i vanish at
    x*, or are the same table up to scale as at x0, then x* attracts or repels. Otherwise Adam
    settles at a distance from x*, and a run that ends closer to x* than it began has converged:
    start farther out than the limit points that should count as converged.

    Args:
      problem: a finite sum that knows its minimiser; `problems.from_loss` makes one.
      beta1: a grid, ascending, in [0, 1).
      beta2: a grid, ascending, in [0, 1).
      x0: the start, of shape `problem.shape`, feasible and not the minimiser.
      samplings: sampling schemes.
      step_size: η0.
      num_steps: T.
      epsilon: ε, outside the square root.
      schedule: of the step sizes.
      initialization: of the moments.
      seed: of the index streams, and of the histories of the random drifts.
      dtype: float32 or float64, of the simulation; `jax_enable_x64` need not be set.
      drift_at: a point, of shape `problem.shape`. The component gradients there are frozen, and the
        stationary drift of their table, with this ε, is added as `drift`. It predicts the verdict
        exactly if a diverging run meets this table from some step on: choose any point of the
        region where gradients are constant, or a distant one if they tend to a limit.
      optimizer: whose axes β1 and β2 are: a name of `optimizers.OPTIMIZERS`, or a function
        (beta1, beta2) → optax transformation with learning rate 1; see `optimizers.from_optax`.
      progress: whether to show a progress bar on stderr, if that is a terminal.

    Returns:
      A data set with dims (sampling, n, beta1, beta2), where n has the single value of the problem,
      for `draw_phase_diagram`; join those of several problems with `xr.concat(…, "n")`.

      - `gap`: ‖x_T − x*‖; `late_gap`: its mean over the steps [9T/10, T].
      - `speed`: push away from x* per step and step size; `speed_error`: half-width of its 95 %
        interval.
      - `diverged`: bool; includes runs that are not finite. `undecided`: bool; neither diverging
        nor converging within the error. All other runs have converged.
      - `underflowed`: bool; v was 0 after a nonzero gradient, or overflowed, so Adam stood still:
        scale the loss, or use float64.
      - `drift`, if requested: the stationary drift per epoch away from x*, of the coordinate in
        which it is largest; where it is positive Adam leaves x*. For random orders it is computed
        as in `drift.drift_of_diagram`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    if isinstance(samplings, str) or not isinstance(samplings, Iterable):
        raise ValueError(f"samplings={samplings!r}: must be a sequence of schemes")
    chosen = _optimizer(optimizer, epsilon, initialization)
    start = checks.numbers("x0", x0)
    frozen = None if drift_at is None else checks.numbers("drift_at", drift_at)
    checks.check_integer("num_steps", num_steps, 1, 2**31)
    checks.check_integer("seed", seed, 0, 2**32)
    spec = diagram.PhaseDiagram(
        problem=type(problem).__name__,
        num_components=(int(np.asarray(problem.num_components)),),
        samplings=tuple(samplings),
        beta1=_grid("beta1", beta1),
        beta2=_grid("beta2", beta2),
        num_steps=num_steps,
        step_size=checks.number("step_size", step_size),
        epsilon=checks.number("epsilon", epsilon),
        schedule=schedule,
        initialization=initialization,
        seed=seed,
        dtype=_dtype(dtype),
        backend=_backend(problem, chosen),
        optimizers=(chosen,),
    )
    _check_settings(spec)
    _check_points(problem, start, frozen)
    found = diagram.coordinates(spec)
    variables = diagram.variables(spec)
    found_shape = tuple(found.sizes[dim] for dim in spec.dims)
    with diagram.precision(spec):
        simulated = _simulate(problem, spec, start, progress)
    for name, values in simulated.items():
        found[name] = spec.dims, values.reshape(found_shape), variables[name].attrs
    if frozen is not None:
        variable = store.Variable(
            spec.dims, np.float64, "stationary drift D away from x*", "1 / epoch"
        )
        away = _drift_away(problem, spec, frozen).reshape(found_shape)
        found["drift"] = spec.dims, away, variable.attrs
    kept = ("num_steps", "step_size", "epsilon", "schedule", "initialization", "seed", "dtype")
    return found.assign_attrs(
        {name: getattr(spec, name) for name in kept},
        x0=start.tolist(),
        minimiser=np.asarray(problem.minimiser, np.float64).tolist(),
        problem=spec.problem,
        start_distance=float(np.linalg.norm(start - np.asarray(problem.minimiser, np.float64))),
    )


def _optimizer(
    optimizer: Optimizer | Factory | str, epsilon: float, initialization: str
) -> Optimizer:
    found = resolved(optimizer)
    if (name := found.ignored(epsilon, initialization)) is not None:
        value = {"epsilon": epsilon, "initialization": initialization}[name]
        raise ValueError(f"{name}={value}: has no effect on optimizer={found.name}")
    return found


def _backend(problem: problems.FiniteSum, optimizer: Optimizer) -> diagram.Backend:
    kernel: kernels.Kernel = "cpu" if jax.default_backend() == "cpu" else kernels.for_gpu()
    if kernel == "cpu":
        return "blocks" if _compiles(problem, optimizer, kernel) else "xla"
    if problem.shape != () or kernels.reason_against_gpu(jax.local_devices()[0]):
        return "xla"
    return "pallas" if _compiles(problem, optimizer, kernel) else "xla"


def _compiles(
    problem: problems.FiniteSum, optimizer: Optimizer = ADAM, kernel: kernels.Kernel = "cpu"
) -> bool:
    """Whether a kernel can run all functions in the gradient and the update rule.

    Found by a test: for a GPU by lowering, which needs no GPU, for CPUs by compiling.
    """
    n = int(np.asarray(problem.num_components))
    program = partial(
        kernels.simulate_table,
        method=simulate.Method(rule=optimizer.rule),
        num_steps=1,
        record_every=1,
        max_components=n,
        kernel=kernel,
    )
    one = jnp.ones(1, jnp.float32)
    cell = adam.Hyperparameters(one[None], one[None], 0.0)
    stacked = problems.stack([problem], np.dtype(np.float32))
    x0, key = jnp.ones((1, *problem.shape), jnp.float32), sampling.stream_key(0)[None]
    try:
        traced = jax.jit(program).trace(stacked, cell, x0, one, key)
        if kernel == "cpu":
            traced.lower().compile()
        else:
            traced.lower(lowering_platforms=("cuda",))
    except Exception:
        return False
    return True


def _simulate(
    problem: problems.FiniteSum, spec: diagram.PhaseDiagram, x0: np.ndarray, progress: bool
) -> dict[str, Shaped[np.ndarray, "S 1 B1 B2"]]:
    rows = simulation.Row(
        problem=problems.stack([problem], np.dtype(spec.dtype)),
        key=sampling.stream_key(spec.seed)[None],
        x0=jnp.asarray(x0, spec.dtype)[None],
        step_size=jnp.full(1, spec.step_size, spec.dtype),
        epsilon=jnp.full(1, spec.epsilon, spec.dtype),
        has_neighbourhood=jnp.array([_has_neighbourhood(problem, x0)]),
    )
    cells = simulation.cells(spec)
    watch = simulation.may_underflow(rows, cells, spec)
    total = len(spec.samplings) * math.prod(spec.table)
    hidden = None if progress else True
    planes: dict[str, list[np.ndarray]] = {}

    def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
        del block  # a chunk is the whole table
        for name, value in values.items():
            planes.setdefault(name, []).append(value)

    with tqdm(total=total, unit="cell", unit_scale=True, disable=hidden) as bar:
        for scheme in spec.samplings:
            bar.set_description(scheme)
            sweep.run(
                backends.program(spec, scheme, optimizer=spec.optimizers[0], watch_underflow=watch),
                rows,
                cells,
                tile=backends.tile_shape(spec),
                chunk=spec.table,
                write=write,
                progress=bar,
            )
    shape = (len(spec.samplings), 1, spec.beta1.size, spec.beta2.size)
    return {name: np.stack(values).reshape(shape) for name, values in planes.items()}


def _has_neighbourhood(problem: problems.FiniteSum, x0: np.ndarray) -> bool:
    """Whether Adam settles at a distance from x* and not at it.

    It does if D0 > 0, or if a component is not stationary at x*; but not if the gradients at x* are
    those at x0 up to a common factor, as the drift is then the same at both.
    """
    if hasattr(problem, "problem_class"):
        return bool(problem.problem_class().d0 > 0)
    there, here = (_gradients_at(problem, x) for x in (np.asarray(problem.minimiser), x0))
    size_there, size_here = np.abs(there).max(), np.abs(here).max()
    if not size_there > _VANISHES * size_here:
        return False
    if not 0 < size_here < np.inf:
        return True
    there, here = there / size_there, here / size_here  # squares of large ones would overflow
    factor = np.sum(there * here) / np.sum(here**2)
    return bool(np.abs(there - factor * here).max() > _VANISHES)


def _gradients_at(problem: problems.FiniteSum, x: np.ndarray) -> Float[np.ndarray, "n d"]:
    n = int(np.asarray(problem.num_components))
    with jax.enable_x64(True):
        arrays = problems.as_arrays(problem, np.float64)
        table = problems.component_gradients(arrays, jnp.asarray(x, np.float64), n)
        return np.asarray(table).reshape(n, -1)


def _drift_away(
    problem: problems.FiniteSum, spec: diagram.PhaseDiagram, x: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "S 1 B1 B2"]:
    """The largest of the coordinates' drifts at x; positive is away from x*."""
    away = np.sign(x - np.asarray(problem.minimiser)).reshape(-1)
    [optimizer] = spec.optimizers
    if optimizer is not ADAM:  # its coordinates may depend on each other
        table = _gradients_at(problem, x)
        whole = [
            phase_drift.drift_of_cells(spec, scheme, 0, table, optimizer, away).drift
            for scheme in spec.samplings
        ]
        return np.stack(whole)[:, None]
    columns = [(c[:, None], s) for c, s in zip(_gradients_at(problem, x).T, away) if s != 0]
    each = [
        [sign * phase_drift.drift_of_cells(spec, scheme, 0, c).drift for c, sign in columns]
        for scheme in spec.samplings
    ]
    return np.max(each, axis=1)[:, None]


def _dtype(dtype: str) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = ""
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}: must be float32 or float64")
    return name


def _grid(name: str, values: ArrayLike | Sequence[float]) -> Float[np.ndarray, " B"]:
    grid = checks.numbers(name, values)
    if grid.ndim != 1 or not grid.size or not (np.diff(grid) > 0).all():
        raise ValueError(f"{name} of shape {grid.shape}: must be an ascending grid, one axis")
    outside = grid[~((grid >= 0) & (grid < 1))]
    if outside.size:
        raise ValueError(f"{name}={outside[0]:g}: values must lie in [0, 1)")
    return grid


def _check_settings(spec: diagram.PhaseDiagram) -> None:
    if not spec.samplings or len(set(spec.samplings)) < len(spec.samplings):
        raise ValueError(f"samplings={spec.samplings}: needs one or more different schemes")
    choices = {
        "samplings": (spec.samplings, sampling.SAMPLINGS),
        "schedule": ((spec.schedule,), adam.SCHEDULES),
        "initialization": ((spec.initialization,), adam.INITIALIZATIONS),
    }
    for name, (chosen, allowed) in choices.items():
        for one in chosen:
            if one not in allowed:
                raise ValueError(f"{name}={one!r} is not one of {', '.join(allowed)}")
    if not 0 < spec.step_size < math.inf:
        raise ValueError(f"step_size={spec.step_size}: must be a finite number above 0")
    if not 0 <= spec.epsilon < math.inf:
        raise ValueError(f"epsilon={spec.epsilon}: must be a finite number, 0 or more")
    for name in ("step_size", "epsilon"):
        checks.check_representable(name, getattr(spec, name), spec.dtype)


def _check_points(problem: problems.FiniteSum, x0: np.ndarray, drift_at: np.ndarray | None) -> None:
    if problem.minimiser is None:
        raise ValueError(
            "problem: its minimiser is None, but runs are judged by their distance from it; pass "
            "it when you make the problem (from_loss(…, minimiser=…))"
        )
    minimiser = np.asarray(problem.minimiser)
    points = {"x0": x0, "drift_at": drift_at, "problem: its minimiser": minimiser}
    for name, point in points.items():
        if point is None:
            continue
        if point.shape != problem.shape or not np.isfinite(point).all():
            raise ValueError(
                f"{name}={point.tolist()}: must be a finite point of shape {problem.shape}"
            )
        if name != "problem: its minimiser" and np.array_equal(point, minimiser):
            raise ValueError(f"{name}={point.tolist()}: must not be the minimiser")
    single = checks.rounded(x0, np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"x0={x0.tolist()}: must be a point that float32 can represent")
    if np.array_equal(single, checks.rounded(minimiser, np.float32)):
        raise ValueError(f"x0={x0.tolist()}: must not be the minimiser, but it rounds to it")
    feasible = np.asarray(problem.project(jnp.asarray(single)))
    if not np.array_equal(feasible, single):
        raise ValueError(f"x0={x0.tolist()}: must be feasible; the closest is {feasible.tolist()}")
