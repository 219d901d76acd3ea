"""`find_beta2`: planted edges, answers that it must refuse, and that it is training with optax."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import sampling
from adam_transition.advise import finder, halving
from adam_transition.advise.finder import find_beta2
from adam_transition.networks import outcomes, workloads

Q = np.sort(1 - np.array(finder.DEFAULT_BETA2))
GUESS = math.log(10)


def _curves(edge, *, seeds=3, records=64, drift=0.0, noise=0.0, steepness=1.0, best=0.1, rng=0):
    """Losses that fall from the guess to `best` on the good side of an edge, which may move.

    At the edge log loss has risen by 15 % of the way; `drift` is how much larger log(1 − β2) at the
    edge is at the first sixteenth.
    """
    generator = np.random.default_rng(rng)
    share = np.arange(1, records + 1) / records
    place = math.log(edge) + drift * np.clip(np.log(share) / math.log(1 / 16), 0, 1)
    rise = 1 / (1 + np.exp(-steepness * (np.log(Q)[:, None] - place)))
    rise = rise * 0.3  # at the edge 0.15
    rise = np.where(rise > 0.29, 1.0, rise)  # far beyond, nothing is learnt
    gain = math.log(GUESS / best) * np.minimum(1, 3 * share)
    height = math.log(GUESS) - gain * (1 - rise)
    scatter = noise * generator.standard_normal((seeds, len(Q), records))
    return np.exp(height + scatter)


def _replayed(loss, guess=GUESS, budget=0.25):
    def extend(seen, records):
        assert (records >= seen.records).all()
        return seen._replace(records=records)

    start = halving.Seen(Q, loss, np.zeros(len(Q), int))
    return halving.search(start, guess, budget, extend)


@settings(deadline=None, max_examples=40)
@given(
    edge=st.floats(3e-4, 0.2),
    drift=st.floats(-0.3, 1.5),
    steepness=st.floats(1.0, 4.0),
    budget=st.sampled_from([0.2, 0.25, 0.5]),
    rng=st.integers(0, 100),
)
def test_a_planted_edge_is_found_within_its_interval_and_the_budget(
    edge, drift, steepness, budget, rng
):
    loss = _curves(edge, drift=drift, steepness=steepness, noise=0.01, rng=rng)
    seen = _replayed(loss, budget=budget)
    assert seen.records.sum() <= budget * loss[0].size + 1e-9
    found = halving.edge(seen, GUESS)
    assert found.low < edge < found.high
    if halving.judge(seen, GUESS)[0] == "found" and budget == 0.5:
        assert abs(math.log(found.value / edge)) < 0.7


def test_with_all_runs_to_the_end_the_answer_is_that_of_full_training():
    loss = _curves(0.01, noise=0.05)
    seen = _replayed(loss, budget=1.0)._replace(records=np.full(len(Q), 64))
    mean = np.exp(np.log(loss[..., -16:].mean(axis=-1)).mean(axis=0))
    [low] = outcomes.window(Q, np.minimum(mean, GUESS)[None], GUESS).low
    assert halving.edge(seen, GUESS).value == pytest.approx(low, rel=1e-9)


def test_what_is_not_trained_is_not_read():
    loss = _curves(0.01, noise=0.02)
    seen = _replayed(loss)
    hidden = loss.copy()
    for index, count in enumerate(seen.records):
        hidden[:, index, count:] = np.nan
    again = seen._replace(loss=hidden)
    assert halving.judge(again, GUESS) == halving.judge(seen, GUESS)
    assert halving.edge(again, GUESS).value == halving.edge(seen, GUESS).value


def test_it_says_that_it_cannot_tell_and_why():
    flat = np.broadcast_to(_curves(0.01)[:, :1], (3, len(Q), 64)).copy()
    assert halving.judge(_replayed(flat), GUESS) == ("every beta2 is good", "")
    rng = np.random.default_rng(0)
    stuck = GUESS * np.exp(0.003 * rng.standard_normal(flat.shape))
    assert halving.judge(_replayed(stuck), GUESS) == ("cannot tell", halving.NOTHING)
    noisy = flat * np.exp(2 * rng.standard_normal((3, len(Q), 1)))
    assert halving.judge(_replayed(noisy), GUESS)[0] == "cannot tell"
    negative = _curves(0.01) - 0.2
    verdict, reason = halving.judge(_replayed(negative), GUESS)
    assert (verdict, "add a small constant" in reason) == ("cannot tell", True)


@pytest.mark.parametrize("num", [4, 6, 9, 16, 25])
@pytest.mark.parametrize("budget", [0.2, 0.25, 0.5, 1.0])
def test_the_stages_fit_the_budget(num, budget):
    if budget < halving.least_budget(num):
        with pytest.raises(ValueError, match=f"budget={budget:g}: must be "):
            halving.sizes(num, budget)
        return
    counts = halving.sizes(num, budget)
    assert counts[0] == num
    assert list(counts) == sorted(counts, reverse=True)
    assert np.diff((0, *halving.SHARES)) @ counts <= budget * num + 1e-9
    assert budget < 1 or counts == (num,) * 4


def _network(width=8):
    def init(key):
        one, two = jax.random.split(key)
        return {
            "in": jax.random.normal(one, (16, width)) / 4,
            "out": jax.random.normal(two, (width, 4)),
        }

    def loss(params, batch):
        x, y = batch
        logits = jnp.tanh(x @ params["in"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    x = jax.random.normal(jax.random.key(1), (64, 16))
    y = jnp.argmax(x[:, :4], axis=1)
    return loss, init, (x, y)


ARGUMENTS = {
    "batch_size": 4, "learning_rate": 0.01, "epochs": 4, "key": jax.random.key(0),
    "beta2": (0.5, 0.9, 0.99, 0.999), "budget": 1.0,
}  # fmt: skip


def test_its_runs_are_those_of_optax():
    """One network, step by step, with the same batches; with a schedule, decay and clipping."""
    loss, init, data = _network()
    schedule = optax.linear_schedule(0.02, 0.001, 50)
    wrap = lambda adam: optax.chain(optax.clip_by_global_norm(0.5), adam)  # noqa: E731
    found = find_beta2(
        loss, init, data, **{**ARGUMENTS, "learning_rate": schedule}, weight_decay=0.1, wrap=wrap
    )
    assert found.cost == 1
    key = workloads.keys_of_seeds(ARGUMENTS["key"], 3)[1]
    order = sampling.indices(
        "random_shuffling", jax.random.fold_in(key, 1), 0, 256, 64, max_components=64
    ).reshape(64, 4)
    optimiser = wrap(optax.adamw(schedule, 0.9, 0.99, eps=1e-8, weight_decay=0.1))
    params = jax.jit(init)(jax.random.fold_in(key, 0))
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, rows):
        value, gradient = jax.value_and_grad(loss)(params, (data[0][rows], data[1][rows]))
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for rows in order:
        params, state, value = step(params, state, rows)
        losses.append(float(value))
    ours = found.runs["running_loss"].sel(seed=1, beta2=0.99, method="nearest")
    np.testing.assert_allclose(ours, losses, rtol=2e-3)


def test_the_finder_is_the_replay_of_its_runs():
    """What it answers is what `halving` says of the curves it returns."""
    loss, init, data = _network()
    found = find_beta2(
        loss, init, data, **{**ARGUMENTS, "beta2": None, "budget": 0.25}, guess=math.log(4)
    )
    curves = found.runs["running_loss"].transpose("seed", "beta2", "record").values
    seen = halving.Seen(1 - found.runs["beta2"].values, curves, np.isfinite(curves[0]).sum(axis=-1))
    assert found.cost == pytest.approx(seen.records.sum() / curves[0].size)
    assert found.cost <= 0.25
    assert found.verdict == halving.judge(seen, math.log(4))[0]
    again = find_beta2(
        loss, init, data, **{**ARGUMENTS, "beta2": None, "budget": 0.25}, guess=math.log(4)
    )
    np.testing.assert_array_equal(again.runs["running_loss"], found.runs["running_loss"])


def test_no_confident_answer_where_there_is_none():
    """A loss that ignores β2, as its gradient only shrinks slowly, and one that never moves."""
    data = jnp.ones((64, 1))
    key = {**ARGUMENTS, "budget": 0.5}

    def falling(params, batch):
        return jnp.exp(-params.sum()) * batch.mean()

    same = find_beta2(
        falling, lambda key: jnp.zeros(1), data, **{**key, "learning_rate": 1e-2}, beta1=0.0
    )
    assert same.verdict in ("every beta2 is good", "cannot tell")
    stuck = find_beta2(
        lambda params, batch: 1 + 0 * params.sum(), lambda key: jnp.zeros(1), data, **key
    )
    assert stuck.verdict == "cannot tell"
    assert math.isnan(stuck.one_minus_beta2)
    assert math.isnan(stuck.best)
    assert halving.NOTHING in stuck.sentence


@pytest.mark.parametrize("power", [2, 4])
def test_no_wrong_edge_where_the_loss_falls_by_decades(power):
    """Regression without noise: the edge moves by far more than on classifiers.

    With every β2 trained to the end, 1 − β2* is 0.003 for squares and 0.087 for fourth powers.
    """
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1024, 10)).astype(np.float32)
    y = (x @ rng.normal(size=10)).astype(np.float32)

    def loss(params, batch):
        return ((batch[0] @ params - batch[1]) ** power).mean()

    found = find_beta2(
        loss, lambda key: jnp.zeros(10), (x, y), batch_size=4, learning_rate=0.03, epochs=6,
        key=jax.random.key(2),
    )  # fmt: skip
    truth = {2: 0.0032, 4: 0.087}[power]
    assert found.verdict == "cannot tell" or found.low <= truth <= found.high


def test_the_unit_of_the_loss_does_not_matter():
    loss, init, data = _network()
    some = {**ARGUMENTS, "beta2": None, "budget": 0.25}
    one = find_beta2(loss, init, data, **some, epsilon=0.0)
    tiny = find_beta2(lambda *args: 1e-9 * loss(*args), init, data, **some, epsilon=0.0)
    assert tiny.verdict == one.verdict
    assert tiny.guess == pytest.approx(1e-9 * one.guess, rel=1e-5)
    assert tiny.allowed == pytest.approx(one.allowed, rel=0.05)


def test_a_lower_learning_rate_is_tried_within_the_budget():
    """Adam with β2 = 0 and β1 = 0.9 is bad at a huge rate."""
    loss, init, data = _network()
    found = find_beta2(
        loss, init, data, batch_size=1, learning_rate=0.03, epochs=8, key=jax.random.key(0),
        budget=0.35, lower_rate=0.1,
    )  # fmt: skip
    assert found.cost <= 0.35 + 1e-9
    assert (found.lower_rate_is_enough is None) == ("cannot be judged" in found.sentence)
    assert "Lowering the learning rate to 0.1" in found.sentence or found.verdict != "found"


def test_states_keys_iterators_and_checkpoints():
    loss, init, data = _network()
    x, y = data

    def with_both(params, state, batch, key):
        keep = jax.random.bernoulli(key, 0.9, batch[0].shape)
        value = loss(params, (batch[0] * keep, batch[1]))
        return value, {"mean": 0.9 * state["mean"] + 0.1 * batch[0].mean()}

    def both(key):
        return init(key), {"mean": jnp.zeros(())}

    batches = ((x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16))
    found = find_beta2(with_both, both, batches, **ARGUMENTS, has_state=True, has_key=True)
    assert np.isfinite(found.runs["running_loss"]).all()
    point = init(jax.random.key(5))
    one = find_beta2(loss, lambda key: point, data, **ARGUMENTS, guess=2.0)
    assert np.isfinite(one.runs["running_loss"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 65}, "batch_size=65: must be an integer from 1 to the 64 samples"),
        ({"batch_size": 0}, "batch_size=0: "),
        ({"batch_size": 2.5}, "batch_size=2.5: "),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be positive"),
        ({"epochs": math.inf}, "epochs=inf: must be positive and finite"),
        ({"epochs": 0.5}, "epochs: 8 steps at batch size 4; needs 16"),
        ({"seeds": 1}, "seeds=1: must be an integer in [2, 65536)"),
        ({"budget": 0.01}, "budget=0.01: must be 0.157 or more for 4 values of beta2"),
        ({"budget": 1.5}, "budget=1.5: must be in (0, 1]"),
        ({"beta2": (0.9, 0.99, 0.999)}, "needs four or more different values in [0, 1)"),
        ({"beta2": (0.9, 0.99, 0.999, 1.0)}, "needs four or more different values in [0, 1)"),
        ({"beta1": 1.0}, "beta1=1.0 is outside [0, 1)"),
        ({"lower_rate": 2.0}, "lower_rate=2.0: must be below 1"),
        ({"guess": -1.0}, "guess=-1.0: must be positive"),
        ({"sampling": "sorted"}, "sampling='sorted' is not one of"),
        ({"epsilon": -1.0}, "epsilon=-1.0 is negative"),
        ({"data": (jnp.ones((8, 2)), jnp.ones(7, int))}, "data: leaves of shapes (8, 2), (7,)"),
        ({"data": ()}, "data: a pytree without arrays"),
        ({"data": iter(())}, "data: an iterator without batches"),
        ({"loss": lambda p, b: b[0].sum(axis=1)}, "loss: returns shape (1,)"),
        ({"loss": lambda p, b: p["no"]}, "loss: fails when it is traced: KeyError"),
        ({"loss": lambda p, b: jnp.nan * p["in"].sum()}, "loss: is nan at the initial parameters"),
        ({"loss": lambda p, b: p["in"].sum() - 1e3}, "must be positive, as logarithms are"),
        ({"loss": 3}, "loss=3: must be a function"),
        ({"init": lambda key: jnp.arange(3)}, "init: a parameter of dtype int32 cannot be trained"),
        ({"init": lambda key: {}}, "init: returns no parameters"),
        ({"loss": lambda p, b: [p["in"].sum()]}, "loss: returns list"),
        ({"loss": lambda p, b: (p["in"].sum(), {}, {})}, "returns 3 values; at most 2 have"),
        ({"loss": lambda p, b: (p["in"].sum(), {"running_loss": 1.0})}, "cannot be called running"),
        ({"key": 0}, "key 0: must be one key"),
        ({"key": jax.random.split(jax.random.key(0))}, "must be one key"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: must be 0 or more"),
        ({"wrap": optax.clip(1.0)}, "wrap: must be a function"),
        ({"wrap": lambda adam: None}, "wrap: must be a function"),
        ({"learning_rate": lambda step: jnp.ones(2)}, "learning_rate: must return a scalar"),
        ({"beta2": ((0.5, 0.9), (0.99, 0.999))}, "needs four or more different values in [0, 1)"),
        ({"has_state": True}, "with has_state it must return (params, state)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_names_the_argument(change, message):
    loss, init, data = _network()
    arguments = {"loss": loss, "init": init, "data": data, **ARGUMENTS, **change}
    if change.get("has_state"):
        arguments["init"] = lambda key: [1.0]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        find_beta2(arguments.pop("loss"), arguments.pop("init"), arguments.pop("data"), **arguments)
    assert "\n" not in str(error.value)


def test_it_is_not_called_inside_jit_nor_while_nans_are_hunted():
    loss, init, data = _network()
    with pytest.raises(ValueError, match="call it outside jit"):
        jax.jit(lambda key: find_beta2(loss, init, data, **{**ARGUMENTS, "key": key}))(
            jax.random.key(0)
        )
    with jax.debug_nans(True), pytest.raises(ValueError, match="jax_debug_nans: turn it off"):
        find_beta2(loss, init, data, **ARGUMENTS)


def test_a_state_must_keep_its_shapes():
    loss, init, data = _network()
    with pytest.raises(ValueError, match=r"loss: takes a state of float32\[\], but returns one of"):
        find_beta2(
            lambda params, state, batch: (loss(params, batch), jnp.zeros(2)),
            lambda key: (init(key), jnp.zeros(())), data, **ARGUMENTS, has_state=True,
        )  # fmt: skip


def test_beta2_is_written_with_two_digits_of_its_distance_from_one():
    for mantissa, exponent in itertools.product((1.23, 9.96), range(-6, 0)):
        q = mantissa * 10.0**exponent
        assert abs(1 - float(finder.beta2_text(q)) - q) < 0.051 * 10.0**exponent + 1e-15
