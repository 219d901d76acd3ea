"""A monitor for training: does Adam's mean update still follow the mean gradient?

It wraps an optimiser, finds Adam in it, and follows Adam's own moments for a few hundred
coordinates, chosen once. So it sees the gradients that Adam receives, after clipping, accumulation
or any other transformation, and counts the steps that Adam takes. The updates pass through
unchanged.

The record covers the last steps of the run, during which the parameters move. It describes the
gradients met in these steps, with an error, and reports when they do not suffice for an answer.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from adam_transition import adam
from adam_transition.advise import find_adam
from adam_transition.advise.find_adam import Moments, Settings
from adam_transition.advise.progress import estimate
from adam_transition.advise.watch import (
    BLOCKS,
    Counts,
    Numbers,
    Watch,
    observe,
    pick,
    rounding,
    size,
    start,
)
from adam_transition.checks import is_concrete

Given = ArrayLike | Callable[[Array], ArrayLike]
"""A number, traced or not, or a function of the number of steps Adam has taken before this one."""

Answer = Literal["too small", "not too small", "cannot tell"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
"""The answers, in the order of the index that `answer` returns."""

_SURE = 3.0  # standard errors
_EPSILON = 1e-8  # for an Adam that the monitor runs itself: the default of optax and PyTorch
_SAME = 1e-3  # relative difference below which two values of 1 − β or of ε count as equal
_STEP = 2.0  # root mean square of m/(√v + ε) above which steps are too long: at most 1 as β2 → 1
_LEAST_STEPS = 100
_MOST_STEPS = 2**31 - 1  # counts have 32 bits
_LEAST_HITS = 30  # gradients that carry a coordinate's Σ g²; with fewer, V is too uncertain
_UNSEEN = 3.0  # an event with this expected count is observed with 95 % confidence


class MonitorState(NamedTuple):
    """State of `monitor`."""

    inner: Any
    watched: tuple[Watch, ...]  # one per Adam in the optimiser


class Diagnostics(NamedTuple):
    """What the watched coordinates show about β2; scalars, for logging."""

    progress: Float[Array, ""]  # ⟨∇f, E[m/(√v + ε)]⟩ over its limit as β2 → 1
    wrong_mass: Float[Array, ""]  # share of Σ|∇f| in coordinates that Adam moves the wrong way
    noise_ratio: Float[Array, ""]  # Σ E g²/Σ (E g)²
    skewness: Float[Array, ""]  # root mean square over coordinates
    resolved: Float[Array, ""]  # share of coordinates whose mean stands out from the noise
    step: Int[Array, ""]  # number of Adam's steps observed
    progress_stderr: Float[Array, ""]  # infinite while it is unknown
    signal: Float[Array, ""]  # the limit of ⟨∇f, m/√v⟩ over its standard error; unresolved below 3
    step_size: Float[Array, ""]  # root mean square of m/(√v + ε): 1 or less as β2 → 1
    one_minus_beta1: Float[Array, ""]  # in the last step
    one_minus_beta2: Float[Array, ""]  # in the last step
    epsilon: Float[Array, ""]  # in the last step
    record: Int[Array, ""]  # steps since the start, or since β1 or β2 changed
    skipped: Int[Array, ""]  # steps left out because a number was not finite
    contradicted: Int[Array, ""]  # steps left out because the moments did not follow β1 and β2
    overruled: Int[Array, ""]  # steps in which an argument differed from the optimiser's own value
    stalled: Float[Array, ""]  # share of v that rounding keeps from moving
    share: Float[Array, ""]  # share of the parameters that this Adam moves
    hits: Float[Array, ""]  # number of gradients that carry the Σ g² of a coordinate
    unseen: Float[Array, ""]  # batches rarer than this may be missing from the record
    lost: Float[Array, ""]  # share of coordinates whose moments are not finite


def monitor(
    inner: optax.GradientTransformation | optax.MultiSteps,
    *,
    beta1: Given | None = None,
    beta2: Given | None = None,
    epsilon: Given | None = None,
    num_coordinates: int = 256,
    horizon: int = 1000,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser; its updates are bit-for-bit unchanged.

    β1, β2 and ε are read from the optimiser, in every step if they are injected. If they cannot be
    read, because Adam is made neither with optax nor with `adam_transition.adam`, they have to be
    given; the moments show whether they are right. For an optimiser without Adam (`optax.identity`,
    for a custom loop) the monitor runs Adam's moments itself on the gradients that it receives.

    Args:
      inner: the optimiser: `optax.adam(…)`, or anything that contains Adam.
      beta1: needed if it cannot be read; otherwise compared with the optimiser's own.
      beta2: like `beta1`.
      epsilon: like `beta1`; default for an optimiser without Adam: 1e-8.
      num_coordinates: how many to watch per Adam; all if there are fewer.
      horizon: how many of Adam's last steps the record covers.
      seed: chooses the coordinates.

    Raises:
      TypeError: inner is not an optimiser.
      ValueError: values outside their ranges, or different from the optimiser's own. From `init`:
        an optimiser whose second moment is not Adam's, or whose values are neither readable nor
        given.
    """
    if not all(callable(getattr(inner, name, None)) for name in ("init", "update")):
        raise TypeError(f"inner: needs an optax.GradientTransformation, not {type(inner).__name__}")
    given = _Given(beta1, beta2, epsilon)
    for name, value in given._asdict().items():
        _check(name, value)
    num_coordinates = _whole("num_coordinates", num_coordinates, 1)
    horizon = _whole("horizon", horizon, 2)
    seed = _whole("seed", seed, 0)
    if horizon > _MOST_STEPS:
        raise ValueError(f"horizon={horizon} is above {_MOST_STEPS}")
    for settings in find_adam.written(inner):
        if settings.is_adam:
            _compare(settings, given)
    inner = optax.with_extra_args_support(inner)
    block = max(horizon // BLOCKS, 1)

    places = num_coordinates, seed

    def init_fn(params: PyTree) -> MonitorState:
        state = inner.init(params)
        found = _adams_of(inner, state)
        for _, settings in found:
            _settle(settings, given, jnp.zeros((), jnp.int32))
        if not found:
            _check_alone(inner, state, given)
            zero = pick(jax.tree.map(jnp.zeros_like, params), *places)
            watches = [start(zero, zero, jnp.zeros((), jnp.int32), block=block, share=1.0)]
        else:
            whole = max(size(params), 1)
            watches = [
                start(
                    pick(moments.first, *places),
                    pick(moments.second, *places),
                    moments.steps,
                    block=block,
                    share=size(moments.first) / whole,
                )
                for moments, _ in found
            ]
        return MonitorState(state, tuple(watches))

    def update_fn(
        updates: PyTree, state: MonitorState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MonitorState]:
        new, inner_state = inner.update(updates, state.inner, params, **extra)
        found = _adams_of(inner, inner_state)
        if not found:
            settings, _ = _settle(None, given, Counts(*state.watched[0].counts).adam, alone=True)
            gradient = pick(updates, *places)
            watches = [_run(state.watched[0], gradient, settings, block)]
        else:
            dropped = _dropped(inner_state)
            watches = [
                _observed(watch, moments, own, given, places, block, dropped)
                for watch, (moments, own) in zip(state.watched, found, strict=True)
            ]
        return new, MonitorState(inner_state, tuple(watches))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def diagnostics(state: PyTree, path: str | None = None) -> Diagnostics:
    """The diagnostics of a monitored optimiser; NaN before the first step.

    Args:
      state: of the optimiser, or anything that contains it: the state of a chain, a train state, an
        `nnx.Optimizer`. For several runs at once use `jax.vmap(diagnostics)(state)`.
      path: selects one of several Adams: a key of `diagnostics_by_path`.

    Raises:
      ValueError: no monitor in the state, several Adams but no path, or several runs.
    """
    found = diagnostics_by_path(state)
    if path is not None and path not in found:
        raise ValueError(f"path={path!r}: {', '.join(map(repr, found))} are watched")
    if path is None and len(found) > 1:
        raise ValueError(
            f"state: {len(found)} Adams are watched; give one of these as path: "
            + ", ".join(map(repr, found))
        )
    return found[next(iter(found)) if path is None else path]


def diagnostics_by_path(state: PyTree) -> dict[str, Diagnostics]:
    """The diagnostics of every watched Adam, by its path in the state.

    Raises:
      ValueError: no monitor in the state, or several runs.
    """
    flat = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_state)[0]
    found: dict[str, Diagnostics] = {}
    for where, node in flat:
        if not _is_state(node):
            continue
        paths = [moments.path for moments in find_adam.find(node.inner)]
        several = len(node.watched) > 1 and len(paths) == len(node.watched)
        for i, watch in enumerate(node.watched):
            if jnp.ndim(watch.counts) > 1:
                raise ValueError(
                    f"state: of {jnp.shape(watch.counts)[0]} runs at once; use "
                    "jax.vmap(diagnostics)(state)"
                )
            inside = (paths[i] if several else str(i)) if len(node.watched) > 1 else ""
            found[jax.tree_util.keystr(where) + inside] = _diagnostics(
                Watch(*jax.tree.leaves(watch)), _refused(state)
            )
    if not found:
        raise ValueError(
            f"state: needs that of an optimiser wrapped in monitor, not {type(state).__name__}"
        )
    return found


def answer(found: Diagnostics, *, progress: float = 0.5) -> Int[Array, "..."]:
    """Whether β2 is too small, as an index into `ANSWERS`; works under `jit` and `vmap`.

    - *too small*: by three standard errors, less than the fraction `progress` of the progress is
      left, or more than its inverse (at least 2); or steps are too long, as they can be with
      β1 ≥ √β2.
    - *not too small*: the progress lies between these limits by three standard errors.
    - *cannot tell*: all other cases. The mean gradient is lost in noise (few steps, or the run has
      converged), v has not filled, v stalls, or the moments contradict β1 and β2. The same holds if
      the answer would be "not too small" but fewer than 30 gradients carry Σ g² (`hits`: sparse
      coordinates, rare large batches), or a coordinate is not finite (`lost`).

    The answer concerns the gradients that were met: a kind of batch rarer than `unseen` may be
    missing from the record, which no error accounts for.

    Args:
      found: from `diagnostics`.
      progress: the fraction of the progress that must be left, in (0, 1).

    Raises:
      TypeError: found is not diagnostics.
      ValueError: a progress outside (0, 1).
    """
    if not isinstance(found, Diagnostics):
        raise TypeError(f"found: needs what diagnostics(state) returns, not {type(found).__name__}")
    if is_concrete(progress) and not np.all(
        (np.asarray(progress) > 0) & (np.asarray(progress) < 1)
    ):
        raise ValueError(f"progress={progress} is outside (0, 1)")
    return _answer(found, progress)


@jax.jit
def _answer(found: Diagnostics, progress: Array | float) -> Int[Array, "..."]:
    most = jnp.where(progress < 0.5, 1 / jnp.maximum(progress, 1e-30), 2.0)
    error = _SURE * found.progress_stderr
    low, high = found.progress - error, found.progress + error
    resolved = (found.signal > _SURE) & jnp.isfinite(low) & jnp.isfinite(high)
    filled = (found.record >= _LEAST_STEPS) & (found.record * found.one_minus_beta2 >= 1)
    follows = 2 * found.contradicted <= found.step
    moves = found.stalled <= 0.5
    # with β1 ≥ √β2 v decays to zero before m does: it stalls there because β2 is too small
    unbounded = (1 - found.one_minus_beta1) ** 2 >= 1 - found.one_minus_beta2
    wild = (found.step_size > _STEP) & (moves | unbounded)
    turned = moves & resolved & ((high < progress) | (low > most))
    small = follows & filled & (wild | turned)
    fine = follows & moves & resolved & ~wild & (low >= progress) & (high <= most)
    fine &= (found.record >= _LEAST_STEPS) & (found.hits >= _LEAST_HITS) & (found.lost == 0)
    return jnp.where(small, 0, jnp.where(fine, 1, 2)).astype(jnp.int32)


def verdict(found: Diagnostics, *, progress: float = 0.5) -> Answer:
    """The answer in words, for a single run and outside `jit`.

    Raises:
      TypeError: found is not diagnostics.
      ValueError: a progress outside (0, 1), or several runs.
    """
    if isinstance(found, Diagnostics) and np.ndim(found.progress):
        raise ValueError(f"found: of {np.shape(found.progress)[0]} runs at once; use answer(found)")
    return ANSWERS[int(answer(found, progress=progress))]


def beta2_too_small(found: Diagnostics, *, progress: float = 0.5) -> Bool[Array, "..."]:
    """Whether the answer is "too small": an alarm that stays silent while it cannot tell."""
    return answer(found, progress=progress) == 0


class _Given(NamedTuple):
    beta1: Given | None
    beta2: Given | None
    epsilon: Given | None


def _adams_of(
    inner: optax.GradientTransformationExtraArgs, state: PyTree
) -> list[tuple[Moments, Settings | None]]:
    """The Adams in a state of the optimiser; settings are None if they cannot be read."""
    found = find_adam.find(state)
    settings: Sequence[Settings | None] = find_adam.read(inner, state) or [None] * len(found)
    return [
        (moments, own)
        for moments, own in zip(found, settings, strict=True)
        if own is None or own.is_adam
    ]


def _observed(
    watch: Watch,
    moments: Moments,
    own: Settings | None,
    given: _Given,
    places: tuple[int, int],
    block: int,
    dropped: Any,
) -> Watch:
    """The record of an Adam after one more step of it; `places` chooses the coordinates."""
    settings, overruled = _settle(own, given, moments.steps - 1)
    return observe(
        watch,
        pick(moments.first, *places),
        pick(moments.second, *places),
        jnp.asarray(moments.steps),
        settings,
        rounding=rounding(moments.first, moments.second, *places),
        block=block,
        overruled=overruled,
        dropped=dropped,
    )


def _run(watch: Watch, gradient: Float[Array, " k"], settings: Settings, block: int) -> Watch:
    """One step of the monitor's own Adam; a gradient that is not finite is skipped and counted."""
    finite = jnp.all(jnp.isfinite(gradient))
    p, q = settings.hyper.one_minus_beta1, settings.hyper.one_minus_beta2
    m, v = watch.moments[:2]
    clean = jnp.where(finite, gradient, 0)
    return observe(
        watch,
        jnp.where(finite, (1 - p) * m + p * clean, m),
        jnp.where(finite, (1 - q) * v + q * clean**2, v),
        Counts(*watch.counts).adam + finite,
        settings,
        rounding=rounding(watch.moments[0], watch.moments[1], gradient.size, 0),
        block=block,
        dropped=~finite,
    )


def _settle(
    own: Settings | None, given: _Given, count: Int[Array, ""], *, alone: bool = False
) -> tuple[Settings, Bool[Array, ""] | bool]:
    """The settings of a step, and whether an argument differs from the optimiser's own.

    Args:
      own: the optimiser's own settings, if they can be read.
      given: the arguments of `monitor`.
      count: number of steps that Adam has taken before this one.
      alone: whether the monitor runs Adam itself, with a default for ε.
    """
    told = {name: value(count) if callable(value) else value for name, value in _told(given)}
    if own is not None:
        differs: Any = False
        for name, value in told.items():
            held = getattr(own.hyper, name)
            if held is not value:
                differs |= jnp.abs(held - value) > _SAME * jnp.abs(held)
        return own, differs
    if alone:
        told.setdefault("epsilon", _EPSILON)
    for argument, name in _NAMES.items():
        if name not in told:
            raise ValueError(f"{argument}: cannot be read from this optimiser; give it")
    return Settings(adam.Hyperparameters(**told)), False


_NAMES = {"beta1": "one_minus_beta1", "beta2": "one_minus_beta2", "epsilon": "epsilon"}


def _told(given: _Given) -> list[tuple[str, Given]]:
    """The arguments that were given, under the names of `adam.Hyperparameters`."""
    found: list[tuple[str, Given]] = []
    for argument, name in _NAMES.items():
        value = getattr(given, argument)
        if value is None:
            continue
        if argument != "epsilon":
            value = _complement(value)
        found.append((name, value))
    return found


def _complement(value: Given) -> Given:
    if callable(value):
        return lambda count: 1 - value(count)
    return 1 - value


def _check(name: str, value: Given | None) -> None:
    if value is None or callable(value) or isinstance(value, jax.core.Tracer):
        return
    if not isinstance(value, int | float | np.number | np.ndarray | jax.Array) or np.ndim(value):
        raise ValueError(f"{name}={value!r}: needs a number or a function of the step")
    allowed, holds = (
        ("[0, 1)", 0 <= value < 1) if name != "epsilon" else ("[0, ∞)", 0 <= value < np.inf)
    )
    if not holds:
        raise ValueError(f"{name}={value} is outside {allowed}")


def _whole(name: str, value: int, least: int) -> int:
    try:
        found = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name}={value!r}: needs a whole number") from error
    if found < least:
        raise ValueError(f"{name}={value} is below {least}")
    return found


def _compare(settings: Settings, given: _Given) -> None:
    """Raises ValueError for a number that differs from the optimiser's own, if both are known."""
    told = dict(_told(given))
    for argument, name in _NAMES.items():
        held: Any = getattr(settings.hyper, name)
        value: Any = told.get(name)
        if value is None or callable(value) or _traced(held) or _traced(value):
            continue
        if abs(float(held) - float(value)) > _SAME * abs(float(held)):
            own = float(held) if argument == "epsilon" else 1 - float(held)
            raise ValueError(
                f"{argument}={getattr(given, argument)}: the optimiser's own is {own:.8g}; "
                "leave it out or make them equal"
            )


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer) or np.ndim(value) > 0


def _check_alone(inner: Any, state: PyTree, given: _Given) -> None:
    """Raises ValueError if the optimiser contains a relative of Adam, or if β1 or β2 is missing."""
    rules = [one.rule for one in find_adam.read(inner, state) or []]
    others = rules or find_adam.relatives(state)
    if others:
        raise ValueError(
            f"inner: {others[0]} is not Adam; the monitor follows what is made of "
            "optax.scale_by_adam or of adam_transition.adam"
        )
    if given.beta1 is None or given.beta2 is None:
        raise ValueError(
            "inner: no Adam in it; give beta1 and beta2 to watch its gradients as Adam would"
        )


def _dropped(state: PyTree) -> Bool[Array, ""] | bool:
    """Whether `optax.MultiSteps` has dropped the gradient of this call."""
    dropped: Any = False
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if getattr(path[-1], "key", None) == "should_skip":
            dropped |= leaf
    return dropped


def _refused(state: PyTree) -> Any:
    """How many gradients `optax.apply_if_finite` has withheld from Adam, inside or outside."""
    return sum(
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if any(getattr(key, "name", None) == "total_notfinite" for key in path)
    )


def _is_state(node: Any) -> bool:
    return isinstance(node, MonitorState)


@jax.jit  # some two hundred operations, which would otherwise be compiled one by one
def _diagnostics(watch: Watch, refused: Any) -> Diagnostics:
    counts, numbers = Counts(*watch.counts), Numbers(*watch.numbers)
    p, q, epsilon, epsilon_root = numbers[:4]
    m, v, largest = watch.moments
    last = jnp.maximum(counts.record - 1, 0) // counts.block  # the block written last
    age = (last - jnp.arange(BLOCKS)) % BLOCKS
    length = jnp.where(age == 0, counts.record - last * counts.block, counts.block)
    kept = jnp.sum(jnp.where(age <= last, length, 0))
    found = estimate(
        watch.blocks,
        jnp.where(age <= last, length, 0),
        age,
        largest * kept / jnp.maximum(counts.steps, 1),
        # m remembers some 3/(1 − β1) steps of earlier blocks
        gap=jnp.maximum(jnp.ceil(3 / (jnp.maximum(p, 1e-6) * counts.block)), 1),
        epsilon=epsilon,
        epsilon_root=epsilon_root,
    )
    moving = jnp.where(numbers.moving > 0, numbers.moving, 1)
    return Diagnostics(
        progress=found.progress,
        wrong_mass=found.wrong_mass,
        noise_ratio=found.noise_ratio,
        skewness=found.skewness,
        resolved=found.resolved,
        step=counts.steps,
        progress_stderr=found.progress_stderr,
        signal=found.signal,
        step_size=jnp.sqrt(found.squared_step),
        one_minus_beta1=p,
        one_minus_beta2=q,
        epsilon=epsilon,
        record=counts.record,
        skipped=counts.skipped + refused,
        contradicted=counts.contradicted,
        overruled=counts.overruled,
        stalled=numbers.stalled / moving,
        share=numbers.share,
        hits=found.hits,
        unseen=_UNSEEN / jnp.maximum(kept, _UNSEEN),
        lost=jnp.sum(~jnp.isfinite(m + v)) / max(m.size, 1),
    )
