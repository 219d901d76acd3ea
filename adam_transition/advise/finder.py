"""`find_beta2`: the smallest good β2 of a user's own training, from short runs.

Training shows what a probe of gradients cannot: what too small a β2 destroys, it destroys early, at
the largest steps. `halving` says which runs to continue; this module trains them.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree, UInt32
from tqdm import tqdm

from adam_transition import adam, checks
from adam_transition.advise import halving
from adam_transition.advise.halving import FoundEdge, Seen, Verdict
from adam_transition.networks import objectives, outcomes, training, workloads
from adam_transition.networks.training import RUNNING, Recipe, Running
from adam_transition.networks.workloads import Workload
from adam_transition.sampling import Sampling
from adam_transition.sampling import check as check_sampling
from adam_transition.simulate import Method
from adam_transition.sweeps import sweep

DEFAULT_BETA2 = tuple(
    float(beta2) for beta2 in 1 / (1 + np.exp(-np.linspace(math.log(2 / 3), math.log(99999), 16)))
)
"""16 values from 0.4 to 1 − 1e-5, even in the logit."""

_RECORDS = (64, 48, 32, 16)  # of a run; the first that fits its steps
_ROUNDING = 0.03  # of the number of steps, to that end
_GUESS = 1.0  # the guess, in its own units
_AT_ONCE = 8  # networks in a tile: few enough to keep all cores busy


class FoundBeta2(NamedTuple):
    """The smallest good β2 of a training, and what it rests on."""

    one_minus_beta2: float  # at the smallest good β2; NaN if it cannot be told
    low: float  # 95 % confidence interval of it
    high: float  # +inf if no β2 of the grid is bad
    best: float  # the β2 of the lowest loss among those trained longest; NaN if nothing is learnt
    verdict: Verdict
    cost: float  # share of the cost of training every β2 with every seed to the end
    sentence: str
    lower_rate_is_enough: bool | None  # whether a bad β2 is good at the lower learning rate
    guess: float  # the loss of a network that has learnt nothing
    allowed: float  # a good late loss is at most this multiple of the best
    runs: xr.Dataset  # `running_loss` over (seed, beta2, record), NaN where not trained


class _Job(NamedTuple):
    """Everything that stays the same during a search."""

    workload: Workload
    recipe: Recipe
    keys: Key[Array, " S"]
    one_minus_beta1: float
    one_minus_beta2: Float[np.ndarray, " K"]
    learning_rate: float
    guess: float
    program: sweep.Program
    bar: tqdm


def find_beta2(
    loss: Callable,
    init: Callable,
    data: PyTree,
    *,
    batch_size: int,
    learning_rate: float | Callable[[Array], ArrayLike],
    epochs: float,
    key: Key[Array, ""] | UInt32[Array, "2"],
    beta1: float = 0.9,
    beta2: Sequence[float] | None = None,
    seeds: int = 3,
    budget: float = 0.25,
    lower_rate: float | None = None,
    guess: float | None = None,
    sampling: Sampling = "random_shuffling",
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation] | None = None,
    has_state: bool = False,
    has_key: bool = False,
    progress: bool | None = None,
) -> FoundBeta2:
    """Finds the smallest β2 that trains as well as the best, by training.

    A β2 is good if its late loss (the mean over the last quarter of the run) lies within 15 % of
    the way, in the logarithm, from the best late loss to `guess`: `allowed` times the best. All β2
    are trained for a sixteenth of the run, and those near the edge longer, up to its end
    (successive halving). All β2 of a seed start from the same parameters and see the same batches.

    The 95 % interval contains the scatter over seeds and, where the edge was not followed to the
    end of the run, its further move as measured on classifiers (`halving.EDGE_MOVES`). On problems
    without noise, whose loss falls by decades until the end, the edge may move farther; then the
    answer is mostly `cannot tell`, and a larger budget helps.

    Args:
      loss: (params, batch) → positive loss, a scalar; or (loss, metrics). See `objectives.of_loss`.
      init: key → params; a checkpoint is `lambda key: params`.
      data: a pytree of arrays whose leading axis is that of the samples, or a finite iterator over
        batches of that form, which is read to its end.
      batch_size: B.
      learning_rate: η0, constant; or an optax schedule, steps → learning rate.
      epochs: length of a whole run; its number of steps is rounded by up to 3 % in long runs, and
        is 16 at least.
      key: of the initial parameters, the order of samples and the loss; consumed.
      beta1: β1.
      beta2: the values to choose from, at least four in [0, 1); default: `DEFAULT_BETA2`.
      seeds: S, two or more.
      budget: share of the cost of training every β2 with every seed to the end.
      lower_rate: a factor below 1: train one bad β2 at that part of the learning rate as well, to
        see whether this does the same; its cost is part of the budget.
      guess: the loss of a network that has learnt nothing, such as that of a constant prediction;
        default: the mean loss at the start, which is too large for many initializations, and wrong
        for a checkpoint. It is part of the result.
      sampling: how batches are drawn, one of `sampling.SAMPLINGS`.
      epsilon: ε of Adam.
      weight_decay: decoupled, as in AdamW.
      wrap: puts the optimiser into a chain, for example
        `lambda adam: optax.chain(optax.clip_by_global_norm(1.0), adam)`; transformations that take
        extra arguments, such as the loss, do not get them.
      has_state: the loss has a state, see `objectives.of_loss`.
      has_key: the loss takes a key, see `objectives.of_loss`.
      progress: show a bar on stderr; default: on a terminal.

    Returns:
      The result. `cannot tell` if nothing is learnt, if the loss is too noisy, or if the seeds
      contradict each other, which `sentence` says.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    check_sampling(sampling)
    workloads.check_call(key, data, weight_decay, wrap, learning_rate=learning_rate)
    q = _grid(beta2)
    spare = 0.0 if lower_rate is None else 1 / len(q)
    _check(beta1, learning_rate, epochs, seeds, lower_rate, guess, epsilon)
    _check_budget(len(q), budget, spare)
    given = workloads.workload(loss, init, data, has_state=has_state, has_key=has_key)
    workloads.check_batch_size(batch_size, given.num_samples)
    recipe = _recipe(
        batch_size, epochs * given.num_samples / batch_size, learning_rate, sampling, epsilon,
        weight_decay, wrap,
    )  # fmt: skip
    keys = workloads.keys_of_seeds(key, seeds)
    starting = workloads.starting_losses(given, keys, batch_size)
    guess = float(starting.mean()) if guess is None else guess
    if not guess > 0:
        raise ValueError(
            f"loss: is {guess:g} at the start; must be positive, as logarithms are compared: add "
            "the constant that makes its optimum small and positive"
        )
    total = round(budget * recipe.num_records * len(q)) * seeds
    with tqdm(total=total, unit="record", disable=_hidden(progress), leave=False) as bar:
        rate = 1.0 if callable(learning_rate) else float(learning_rate)
        program = _program(given, recipe)
        job = _Job(given, recipe, keys, 1 - beta1, q, rate, guess, program, bar)
        seen = _search(job, budget - spare)
        cost = float(seen.records.sum()) / (recipe.num_records * len(q))
        helps = None
        if lower_rate is not None:
            helps, more = _try_lower_rate(job, seen, lower_rate)
            cost += more / len(q)
    return _answer(job, seen, cost, lower_rate, helps)


def _grid(beta2: Sequence[float] | None) -> Float[np.ndarray, " K"]:
    given = DEFAULT_BETA2 if beta2 is None else beta2
    values = np.unique(checks.numbers("beta2", given))
    if np.ndim(given) != 1 or len(values) < 4 or not ((values >= 0) & (values < 1)).all():
        raise ValueError(f"beta2={given}: needs four or more different values in [0, 1)")
    return np.asarray(np.sort(1 - values))


def _check(
    beta1: float,
    learning_rate: float | Callable,
    epochs: float,
    seeds: int,
    lower_rate: float | None,
    guess: float | None,
    epsilon: float,
) -> None:
    """Raises ValueError for an impossible number."""
    adam.hyperparameters(checks.number("beta1", beta1), 0.0, epsilon=epsilon)
    checks.check_integer("seeds", seeds, 2, 2**16)
    positive = {"epochs": epochs, "guess": guess, "lower_rate": lower_rate}
    if not callable(learning_rate):
        positive["learning_rate"] = learning_rate
    for name, value in positive.items():
        if value is not None and not 0 < checks.number(name, value) < math.inf:
            raise ValueError(f"{name}={value}: must be positive and finite")
    if lower_rate is not None and lower_rate >= 1:
        raise ValueError(f"lower_rate={lower_rate}: must be below 1")


def _check_budget(num_beta2: int, budget: float, spare: float) -> None:
    """Raises ValueError if the budget less what the lower rate needs is too small."""
    if not 0 < checks.number("budget", budget) <= 1:
        raise ValueError(f"budget={budget}: must be in (0, 1]")
    try:
        halving.sizes(num_beta2, budget - spare)
    except ValueError:
        least = halving.least_budget(num_beta2) + spare
        raise ValueError(
            f"budget={budget:g}: must be {math.ceil(1000 * least) / 1000:g} or more for "
            f"{num_beta2} values of beta2" + (" and lower_rate" if spare else "")
        ) from None


def _recipe(
    batch_size: int,
    num_steps: float,
    learning_rate: float | Callable,
    sampling: Sampling,
    epsilon: float,
    weight_decay: float,
    wrap: Callable | None,
) -> Recipe:
    if num_steps < _RECORDS[-1]:
        raise ValueError(
            f"epochs: {num_steps:.3g} steps at batch size {batch_size}; needs {_RECORDS[-1]}"
        )
    fits = [(records, records * max(1, round(num_steps / records))) for records in _RECORDS]
    error = [abs(steps - num_steps) / num_steps for _, steps in fits]
    close = [i for i in range(len(fits)) if error[i] <= _ROUNDING]
    records, steps = fits[close[0] if close else int(np.argmin(error))]
    schedule = learning_rate if callable(learning_rate) else None
    method = Method(sampling, "constant", "bias_correction")
    more = {} if wrap is None else {"wrap": wrap}
    return Recipe(
        batch_size, steps, records, 1, method, epsilon, evaluated=0, schedule=schedule,
        weight_decay=weight_decay, **more,
    )  # fmt: skip


def _hidden(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _program(given: Workload, recipe: Recipe) -> sweep.Program:
    """Trains a sixteenth of a run, of any network in training."""

    def cell(row: PyTree, cell: PyTree, samples: PyTree) -> dict[str, Any]:
        hyper = adam.Hyperparameters(cell["p"], cell["q"], recipe.epsilon)
        network, curves = training.advance(
            given.objective, samples, hyper, cell["learning_rate"], row["key"], recipe,
            cell["network"], cell["first"], recipe.num_records // 16,
        )  # fmt: skip
        leaves = {f"leaf {i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(network))}
        return {**leaves, RUNNING: curves[RUNNING]}

    return sweep.Program(cell, (given.samples,))


def _start(job: _Job) -> Running:
    """The networks of all seeds before training, with leading axis S."""
    draw = objectives.initial(job.workload.objective)
    started = [training.start(job.recipe, draw(key)) for key in job.keys]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *started)


def _train_part(
    job: _Job, networks: dict[int, Running], first: int, learning_rate: float
) -> tuple[dict[int, Running], Float[np.ndarray, "S W P"]]:
    """Trains networks, by the index of their β2, for a sixteenth of a run after `first` records.

    Returns:
      The networks, and the losses of the new records.
    """
    shape = (len(job.keys), len(networks))
    dtype = jnp.result_type(float)
    one_minus_beta2 = job.one_minus_beta2[list(networks)]
    numbers = {"learning_rate": learning_rate, "p": job.one_minus_beta1, "q": one_minus_beta2}
    cells: dict[str, Any] = {
        name: np.broadcast_to(np.asarray(value, dtype), shape) for name, value in numbers.items()
    }
    cells["first"] = np.full(shape, first, np.int32)
    cells["network"] = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *networks.values())
    found: dict[str, np.ndarray] = {}
    sweep.run(
        job.program, {"key": job.keys}, cells, tile=(1, min(shape[1], _AT_ONCE)), chunk=shape,
        write=lambda _, values: found.update(values),
    )  # fmt: skip
    loss = found.pop(RUNNING)
    structure = jax.tree.structure(cells["network"])
    trained = {
        index: jax.tree.unflatten(structure, [found[name][:, i] for name in sorted(found)])
        for i, index in enumerate(networks)
    }
    job.bar.update(loss.size)
    return trained, loss


def _train_until(
    job: _Job, networks: dict[int, Running], seen: Seen, wanted: Int[np.ndarray, " K"]
) -> Seen:
    """Trains every β2 up to its number of records; changes `networks`.

    Losses are kept in units of the guess, so that their scale does not matter.
    """
    records = seen.records.copy()
    part = job.recipe.num_records // 16
    while (records < wanted).any():
        first = int(records[records < wanted].min())
        columns = np.flatnonzero((records < wanted) & (records == first))
        trained, loss = _train_part(
            job, {i: networks[i] for i in map(int, columns)}, first, job.learning_rate
        )
        networks.update(trained)
        seen.loss[:, columns, first : first + part] = loss / job.guess
        records[columns] += part
    return seen._replace(records=records)


def _search(job: _Job, budget: float) -> Seen:
    """Trains as `halving.search` says."""
    num_beta2, records = len(job.one_minus_beta2), job.recipe.num_records
    networks = dict.fromkeys(range(num_beta2), _start(job))
    loss = np.full((len(job.keys), num_beta2, records), np.nan)
    nothing = Seen(job.one_minus_beta2, loss, np.zeros(num_beta2, int))
    return halving.search(nothing, _GUESS, budget, partial(_train_until, job, networks))


def _try_lower_rate(job: _Job, seen: Seen, factor: float) -> tuple[bool | None, float]:
    """Whether a β2 that is bad is good at a lower learning rate, and the runs that this took.

    Returns None, at no cost, if no β2 is clearly bad.
    """
    found, height = halving.edge(seen, _GUESS), halving.heights(seen, _GUESS)
    level = outcomes.good_level(height, _GUESS)[:, 0]
    bad = np.flatnonzero(
        (height > level[:, None]).all(axis=0) & (seen.one_minus_beta2 > found.high)
    )
    if not len(bad):
        return None, 0.0
    networks, losses = {int(bad[0]): _start(job)}, []
    part = job.recipe.num_records // 16
    for first in range(0, job.recipe.num_records, part):
        networks, loss = _train_part(job, networks, first, factor * job.learning_rate)
        losses.append(loss[:, 0])
    late = outcomes.log(outcomes.late_loss(np.concatenate(losses, axis=-1) / job.guess))
    good = late <= level
    return (bool(good.all()) if good.all() or not good.any() else None), 1.0


def _answer(
    job: _Job,
    seen: Seen,
    cost: float,
    lower_rate: float | None,
    helps: bool | None,
) -> FoundBeta2:
    found, height = halving.edge(seen, _GUESS), halving.heights(seen, _GUESS).mean(axis=0)
    long = np.flatnonzero(seen.records == seen.records.max())
    best = int(long[np.argmin(height[long])])
    q = seen.one_minus_beta2
    verdict, reason = halving.judge(seen, _GUESS)
    named = FoundBeta2(
        found.value if verdict == "found" else math.nan, found.low, min(found.high, 1.0),
        1 - float(q[best]), verdict, cost, "", helps, job.guess,
        math.exp(-outcomes.TOLERANCE * float(height[best])), _runs(job, seen),
    )  # fmt: skip
    if verdict == "every beta2 is good":
        named = named._replace(one_minus_beta2=float(q[-1]), high=math.inf)
    if verdict == "cannot tell":
        named = named._replace(low=0.0, high=1.0)
        if reason == halving.NOTHING:
            named = named._replace(best=math.nan)
    return named._replace(sentence=_sentence(job, named, found, reason, lower_rate))


def _sentence(
    job: _Job, found: FoundBeta2, edge: FoundEdge, reason: str, lower_rate: float | None
) -> str:
    rate = "" if callable(job.recipe.schedule) else f" and learning rate {job.learning_rate:g}"
    where = f"At batch size {job.recipe.batch_size}{rate}"
    spent = f"({found.cost:.0%} of the cost of a full sweep, {len(job.keys)} seeds)"
    match found.verdict:
        case "cannot tell":
            return f"{where}: cannot tell {spent}: {reason}."
        case "every beta2 is good":
            least = beta2_text(float(job.one_minus_beta2[-1]))
            return f"{where} every β2 on the grid, from {least} up, is as good {spent}."
    low, high = beta2_text(found.high), beta2_text(found.low)
    interval = f"95 %: {low} to {high}" if found.high < 1 else f"95 %: at most {high}"
    said = (
        f"{where} the smallest good β2 is {beta2_text(found.one_minus_beta2)} ({interval}); "
        f"good is a late loss of up to {found.allowed:.2g} times the best {spent}."
    )
    if edge.share < 1:
        said += f" The edge was followed for {edge.share:g} of the run only."
    if lower_rate is not None:
        told = {True: "does the same", False: "does not help", None: "cannot be judged"}
        said += f" Lowering the learning rate to {lower_rate:.2g} of it instead "
        said += f"{told[found.lower_rate_is_enough]}."
    return said


def beta2_text(one_minus_beta2: float) -> str:
    """β2 with two digits of 1 − β2.

    >>> [beta2_text(q) for q in (0.4, 0.018, 0.00123)]
    ['0.60', '0.982', '0.9988']
    """
    if one_minus_beta2 >= 1:
        return "0"
    digits = max(2, 1 - math.floor(math.log10(one_minus_beta2)))
    return f"{1 - one_minus_beta2:.{digits}f}"


def _runs(job: _Job, seen: Seen) -> xr.Dataset:
    share = np.arange(1, job.recipe.num_records + 1) / job.recipe.num_records
    label = {"long_name": "mean training loss since the last record", "units": "1"}
    beta2 = ("beta2", 1 - seen.one_minus_beta2, {"long_name": "β2", "units": "1"})
    return xr.Dataset(
        {RUNNING: (("seed", "beta2", "record"), seen.loss * job.guess, label)},
        {
            "seed": ("seed", np.arange(len(job.keys)), {"long_name": "seed", "units": "1"}),
            "beta2": beta2,
            "record": ("record", share, {"long_name": "share of the run", "units": "1"}),
        },
    )
