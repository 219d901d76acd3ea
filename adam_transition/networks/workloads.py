"""What a user brings: a loss, initial parameters and data, checked before anything is trained."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree, UInt32

from adam_transition import checks
from adam_transition.networks import objectives
from adam_transition.networks.objectives import Objective

_STARTING = 2048  # samples on which the loss at the start is measured


class Workload(NamedTuple):
    """An objective and the samples it is trained on."""

    objective: Objective
    samples: PyTree  # arrays with the same leading axis

    @property
    def num_samples(self) -> int:
        """N."""
        return len(jax.tree.leaves(self.samples)[0])


def workload(
    loss: Callable,
    init: Callable,
    data: PyTree,
    *,
    has_state: bool = False,
    has_key: bool = False,
    measure: Callable | None = None,
) -> Workload:
    """Checks a user's functions and data without computing anything.

    Args:
      loss: see `objectives.of_loss`.
      init: key → parameters.
      data: a pytree of arrays with the same leading axis, the samples; or an iterator over batches
        of that form, which is read to its end and joined.
      has_state: see `objectives.of_loss`.
      has_key: see `objectives.of_loss`.
      measure: see `objectives.of_loss`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    for name, function in (("loss", loss), ("init", init), ("measure", measure)):
        if function is not None and not callable(function):
            raise ValueError(f"{name}={function!r}: must be a function")
    samples = _samples(data)
    objective = objectives.of_loss(
        loss, init, has_state=has_state, has_key=has_key, measure=measure
    )
    found = Workload(objective, samples)
    _check_functions(found)
    return found


def _samples(data: PyTree) -> PyTree:
    if isinstance(data, Iterator):
        batches = list(data)
        if not batches:
            raise ValueError("data: an iterator without batches")
        data = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
    leaves = jax.tree.leaves(data)
    if not leaves:
        raise ValueError("data: a pytree without arrays; needs one or more")
    shapes = [np.shape(leaf) for leaf in leaves]
    if not all(shapes) or len({shape[0] for shape in shapes}) > 1 or not shapes[0][0]:
        given = ", ".join(map(str, shapes))
        raise ValueError(
            f"data: leaves of shapes {given}: all need the same leading axis, that of the samples"
        )
    return jax.tree.map(jnp.asarray, data)


def _check_functions(given: Workload) -> None:
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = _shapes("init", given.objective.init, key)
    params, state = made
    taken = _kinds(state)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(params)]
    if not kinds:
        raise ValueError("init: returns no parameters")
    for kind in kinds:
        if not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(
                f"init: a parameter of dtype {kind} cannot be trained; put it into the state "
                "(has_state) or into the loss"
            )
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype),
                         given.samples)  # fmt: skip
    value, (new, _) = _shapes("loss", given.objective.loss, params, state, batch, key)
    if not hasattr(value, "shape"):
        raise ValueError(f"loss: returns {type(value).__name__}; must be a real scalar")
    if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss: returns shape {value.shape}, {value.dtype}; must be a real scalar")
    if _kinds(new) != taken:
        raise ValueError(f"loss: takes a state of {taken}, but returns one of {_kinds(new)}")
    measured = _shapes("measure", given.objective.measure, params, state, batch)
    for name, one in measured.items():
        if one.shape:
            raise ValueError(f"measure: {name} has shape {one.shape}; must be a scalar")


def _kinds(tree: PyTree) -> str:
    """Structure, shapes and dtypes."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))


def check_call(
    key: Any,
    data: PyTree,
    weight_decay: Any,
    wrap: Callable | None,
    *,
    learning_rate: Any = None,
    schedule: Any = None,
) -> None:
    """Raises ValueError for what neither `find_beta2` nor `train_plane` can use."""
    if not checks.is_concrete(key, data if not isinstance(data, Iterator) else ()):
        raise ValueError("key, data: are traced; call it outside jit, as it compiles for itself")
    if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
        raise ValueError("jax_debug_nans: turn it off, as runs that diverge are part of the answer")
    try:
        jax.random.bits(key, (2,), jnp.uint32)
    except (TypeError, ValueError):
        given = f"of shape {np.shape(key)}" if np.ndim(key) else repr(key)
        raise ValueError(f"key {given}: must be one key, as jax.random.key(0)") from None
    if not 0 <= checks.number("weight_decay", weight_decay) < np.inf:
        raise ValueError(f"weight_decay={weight_decay}: must be 0 or more")
    if schedule is not None and not callable(schedule):
        raise ValueError(f"schedule={schedule!r}: must be a function")
    for name, function in (("learning_rate", learning_rate), ("schedule", schedule)):
        if callable(function):
            found = _shapes(name, function, jnp.zeros((), jnp.int32))
            if not hasattr(found, "dtype") or found.shape:
                raise ValueError(f"{name}: must return a scalar")
    if wrap is not None:
        made = wrap(optax.identity()) if callable(wrap) else None
        if not (hasattr(made, "init") and hasattr(made, "update")):
            raise ValueError("wrap: must be a function of an optax transformation that returns one")


def _shapes(name: str, function: Callable, *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:  # whatever the user's function raises
        said = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{name}: fails when it is traced: {type(error).__name__}: {said}"
        ) from error


def check_batch_size(batch_size: Any, num_samples: int) -> None:
    """Raises ValueError unless a batch size is an integer from 1 to the number of samples."""
    try:
        checks.check_integer("batch_size", batch_size, 1, num_samples + 1)
    except ValueError:
        raise ValueError(
            f"batch_size={batch_size!r}: must be an integer from 1 to the {num_samples} samples"
        ) from None


def keys_of_seeds(key: Key[Array, ""] | UInt32[Array, "2"], num_seeds: int) -> Key[Array, " S"]:
    """One key of an index stream for each seed; see `sampling.stream_key`."""
    words = [
        jax.random.bits(jax.random.fold_in(key, i), (2,), jnp.uint32) for i in range(num_seeds)
    ]
    return jnp.stack([jax.random.wrap_key_data(word, impl="threefry2x32") for word in words])


def starting_losses(
    given: Workload, keys: Key[Array, " S"], batch_size: int
) -> Float[np.ndarray, " S"]:
    """The mean loss at the initial parameters of each seed, over 2048 samples or fewer.

    Raises:
      ValueError: it is not finite.
    """
    size = min(batch_size, _STARTING, given.num_samples)
    starts = np.arange(0, min(given.num_samples, _STARTING), size)
    starts = np.minimum(starts, given.num_samples - size)  # the last batch may overlap
    batches = jax.tree.map(lambda leaf: leaf[starts[:, None] + np.arange(size)], given.samples)
    one_loss = objectives.one_loss(given.objective)

    @jax.jit
    def mean(params: PyTree, state: PyTree, key: Key[Array, ""]) -> Array:
        return jax.lax.map(lambda batch: one_loss(params, state, batch, key), batches).mean()

    draw = objectives.initial(given.objective)
    losses = np.array([float(mean(*draw(key), jax.random.fold_in(key, 2))) for key in keys])
    if not np.isfinite(losses).all():
        raise ValueError(f"loss: is {losses[~np.isfinite(losses)][0]} at the initial parameters")
    return losses
