"""What is trained: a loss of parameters and a batch, for our models and for those of users.

An `Objective` is the form that training works with. It allows for a state that is no parameter
(batch statistics) and for a key (dropout); an objective that has none carries empty ones at no
cost. `of_model` makes one of a classifier, `of_loss` of any function (params, batch) → loss.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

RUNNING = "running_loss"
"""The mean loss over the batches since the last record: it costs nothing to measure."""


class Model(NamedTuple):
    """A classifier of a fixed shape."""

    init: Callable[[Key[Array, ""]], PyTree]  # the key is consumed
    apply: Callable[[PyTree, Array], Array]  # (parameters, [B, ...]) → logits [B, ..., classes]


class Objective(NamedTuple):
    """Pure functions of one network. `state` is a pytree, () for a network without state."""

    init: Callable[[Key[Array, ""]], tuple[PyTree, PyTree]]  # key, consumed → params, state
    # (params, state, batch, key) → loss, (new state, further metrics of the batch)
    loss: Callable[..., tuple[Array, tuple[PyTree, Mapping[str, Array]]]]
    measure: Callable[..., Mapping[str, Array]]  # (params, state, batch) → means over the batch


def cross_entropy(model: Model, params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
    """Cross entropy in nats, the mean over samples (and tokens)."""
    inputs, targets = batch
    logits = model.apply(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def of_model(model: Model) -> Objective:
    """The cross entropy of a classifier; measures `loss` in nats and `accuracy`."""

    def init(key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
        return model.init(key), ()

    def loss(params: PyTree, state: PyTree, batch: Any, key: Key[Array, ""]) -> Any:
        del key
        return cross_entropy(model, params, batch), (state, {})

    def measure(params: PyTree, state: PyTree, batch: tuple[Array, Array]) -> Mapping[str, Array]:
        del state
        logits = model.apply(params, batch[0])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        right = logits.argmax(axis=-1) == batch[1]
        return {"loss": losses.mean(), "accuracy": right.mean(dtype=losses.dtype)}

    return Objective(init, loss, measure)


def of_loss(
    loss: Callable,
    init: Callable[[Key[Array, ""]], PyTree],
    *,
    has_state: bool = False,
    has_key: bool = False,
    measure: Callable | None = None,
) -> Objective:
    """An objective of the user's own functions.

    Args:
      loss: (params, batch) → loss, a scalar; or (loss, metrics) with a mapping of scalars. With
        `has_state` (params, state, batch) → (loss, state) or (loss, state, metrics). With `has_key`
        it takes a key as its last argument.
      init: key → params; with `has_state` key → (params, state).
      has_state: the loss has a state besides its parameters, such as batch statistics.
      has_key: the loss draws random numbers, as for dropout.
      measure: (params, batch), or (params, state, batch), → mapping of scalars, means over the
        batch; measured at every record.
    """

    def full_init(key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
        made = init(key)
        if has_state and not (isinstance(made, tuple) and len(made) == 2):
            raise ValueError("with has_state it must return (params, state)")
        return made if has_state else (made, ())

    def full_loss(params: PyTree, state: PyTree, batch: PyTree, key: Key[Array, ""]) -> Any:
        found = loss(params, *((state,) if has_state else ()), batch, *((key,) if has_key else ()))
        value, *aux = found if isinstance(found, tuple) else (found,)
        if has_state and not aux:
            raise ValueError("with has_state it must return (loss, state)")
        new = aux.pop(0) if has_state else state
        if len(aux) > 1:
            raise ValueError(f"returns {len(found)} values; at most {2 + has_state} have a meaning")
        return value, (new, _metrics(aux[0] if aux else None))

    def full_measure(params: PyTree, state: PyTree, batch: PyTree) -> Mapping[str, Array]:
        if measure is None:
            return {}
        found = measure(params, *((state,) if has_state else ()), batch)
        if not isinstance(found, Mapping):
            raise ValueError(f"returns {type(found).__name__}; must return a mapping of scalars")
        _check_names(found)
        return {str(name): jnp.asarray(value) for name, value in found.items()}

    return Objective(full_init, full_loss, full_measure)


def _metrics(aux: Any) -> Mapping[str, Array]:
    """The scalars of a mapping; any other auxiliary output is ignored."""
    if not isinstance(aux, Mapping):
        return {}
    _check_names(aux)
    return {
        str(name): jnp.asarray(value, jnp.result_type(float))
        for name, value in aux.items()
        if not isinstance(value, Mapping) and jnp.ndim(value) == 0
    }


def _check_names(metrics: Mapping[Any, Any]) -> None:
    if RUNNING in metrics:
        raise ValueError(f"a metric cannot be called {RUNNING}: that is the loss itself")


def one_loss(objective: Objective) -> Callable[..., Array]:
    """The loss alone, without its auxiliary outputs."""

    def loss(params: PyTree, state: PyTree, batch: PyTree, key: Any) -> Float[Array, ""]:
        return objective.loss(params, state, batch, key)[0]

    return loss


def initial(objective: Objective) -> Callable[[Key[Array, ""]], tuple[PyTree, PyTree]]:
    """The initial parameters and state as a program of its own: key → (params, state).

    It runs once per seed, so its cost is compilation. On CPUs this takes a third of the time
    without LLVM's last optimisations, with bit-for-bit the same result.
    """
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    return jax.jit(partial(_initial, objective), compiler_options=options)


def _initial(objective: Objective, key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
    return objective.init(jax.random.fold_in(key, 0))
