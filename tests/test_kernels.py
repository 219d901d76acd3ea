"""The kernels: the same runs as XLA's, the GPU's in interpret mode; and its lowering for CUDA."""

import dataclasses
from functools import partial
from typing import get_args
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition import adam, kernels, problems, sampling, simulate
from adam_transition.kernels import cpu, elementary, simulate_table, tuned
from adam_transition.kernels.split import split
from adam_transition.studies.phase import backends, diagram, plane, simulation
from adam_transition.sweeps import sweep

KERNELS = ("cpu", kernels.for_gpu())
ONE_DIMENSIONAL = [
    name
    for name in problems.PROBLEMS
    if problems.built_in(name, problems.default_n(name)[0]).shape == ()
]
METHODS = [
    simulate.Method("cyclic", "inverse_sqrt", "zero"),
    simulate.Method("random_shuffling", "inverse_sqrt_epoch", "bias_correction"),
    simulate.Method("with_replacement", "constant", "first_gradient"),
    simulate.Method("shuffle_once", "inverse_sqrt", "bias_correction"),
]


_GPU_CALLS = {"triton": "__gpu$xla.gpu.triton", "mosaic": "@mosaic_gpu"}


def _own_loss(x, row):
    """A user's: log cosh of distances to points, each with a weight."""
    return row["weight"] * jnp.log(jnp.cosh(x - row["b"]))


def _slope(x, slopes):
    return jnp.sum(slopes * x)


def _own_vector_loss(x, row):
    """A user's in three dimensions, with integers, matrices, a norm, a slice and a branch."""
    signs = 2 * row["label"] - 1
    logits = jax.lax.cond(row["is_odd"], jnp.tanh, jnp.sin, row["features"] @ x)
    return jnp.mean(jax.nn.softplus(-signs * logits)) + jnp.linalg.norm(x[1:] - row["b"]) ** 2


def _own_vector_problem(n, generator):
    data = {
        "features": generator.normal(size=(n, 4, 3)), "label": generator.integers(0, 2, (n, 4)),
        "is_odd": np.arange(n) % 2 == 1, "b": generator.normal(size=(n, 2)) + 3,
    }  # fmt: skip
    return problems.from_loss(_own_vector_loss, data, shape=3, minimiser=np.zeros(3))


def _own_problem(n, generator):
    data = {"b": generator.normal(size=n), "weight": generator.random(n)}
    return problems.from_loss(_own_loss, data, minimiser=0.0)


def _members(name, sizes=(5, 12)):
    generator = np.random.default_rng(3)
    if name == "own":
        return [_own_problem(n, generator) for n in sizes]
    if name == "own_vector":
        return [_own_vector_problem(n, generator) for n in sizes]
    if name == "quadratics":
        return [problems.nonrealizable_quadratics(n, 3) for n in sizes]
    if name == "box":  # constrained, so that displacements are recorded
        data = generator.normal(size=(2, sizes[0], 2))
        bounds = {"shape": 2, "bounds": (-0.6, 0.6), "minimiser": np.zeros(2)}
        return [problems.from_loss(_slope, slopes, **bounds) for slopes in data]
    if name == "slope_table":  # a table of slopes, which a kernel could not look up
        return [problems.slope_table([2.0, -0.5, 0.25, s]) for s in (0.5, 1.5)]
    fixed = problems.default_n(name)
    return [problems.built_in(name, n) for n in (sizes if len(fixed) > 1 else fixed * 2)]


def _setting(members, num_columns, dtype=np.float32, seed=0):
    """Arguments of `simulate_table` for rows of these members, with β1 < √β2."""
    generator, num_rows = np.random.default_rng(seed), len(members)
    beta2 = generator.uniform(0.3, 0.999, (num_rows, num_columns))
    beta1 = generator.uniform(0, 0.95, beta2.shape) * np.sqrt(beta2)
    hyper = adam.Hyperparameters((1 - beta1).astype(dtype), (1 - beta2).astype(dtype), 0.0, 0.0)
    keys = jnp.stack([sampling.stream_key(i) for i in range(num_rows)])
    stacked = problems.stack(members, dtype)
    x0 = jnp.full((num_rows, *members[0].shape), 0.5, dtype)
    return stacked, hyper, x0, jnp.linspace(0.05, 0.1, num_rows, dtype=dtype), keys


def _with_xla(problem, hyper, x0, step_size, key, **static):
    def one(problem, p, q, x0, step_size, key):
        cell = adam.Hyperparameters(p, q, *hyper[2:])
        return simulate.simulate(problem, cell, x0, step_size, key, **static)

    over_columns = jax.vmap(one, in_axes=(None, 0, 0, None, None, None))
    return jax.jit(jax.vmap(over_columns))(problem, *hyper[:2], x0, step_size, key)


def _with_kernel(kernel, *setting, **static):
    function = partial(simulate_table, kernel=kernel, interpret=kernel != "cpu", **static)
    return jax.jit(function)(*setting)


def _static(method, num_steps=300, record_every=128, max_components=101):
    return {
        "method": method,
        "num_steps": num_steps,
        "record_every": record_every,
        "max_components": max_components,
    }


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in ("counterexample", "own") for method in METHODS),
        *zip([*ONE_DIMENSIONAL[1:], "slope_table"], METHODS * 2, strict=False),
        *zip(["quadratics", "own_vector", "box"], METHODS, strict=False),
        ("own_vector", METHODS[2]),
    ],
)
def test_the_kernels_are_the_xla_path(name, method):
    setting, static = _setting(members := _members(name), 150), _static(method)
    xla = _with_xla(*setting, **static)
    for kernel in KERNELS:
        found = _with_kernel(kernel, *setting, **static)
        assert found.x.shape == xla.x.shape == (2, 150, 3, *members[0].shape)
        np.testing.assert_array_equal(found.step, xla.step)
        np.testing.assert_allclose(found.x, xla.x, rtol=1e-5, atol=1e-5, err_msg=kernel)
        if name == "box":
            np.testing.assert_allclose(found.reaction, xla.reaction, rtol=1e-4, atol=1e-5)
            assert np.abs(xla.reaction).max() > 0.01


def _falling():
    """Runs that fall below 1e-17, where the unit of float32 moves, and hop about the minimiser."""
    member = problems.realizable_quadratics(5)
    q = np.geomspace(2e-3, 0.5, 20, dtype=np.float32)[None]
    hyper = adam.Hyperparameters(np.full_like(q, 0.6), q, 0.0, 0.0)
    one = np.ones(1, np.float32)
    stacked = problems.stack([member], np.float32)
    x0, keys = np.full((1, *member.shape), 1.5, np.float32), sampling.stream_key(0)[None]
    static = _static(simulate.Method("with_replacement"), num_steps=1500, record_every=50)
    return (stacked, hyper, x0, 0.1 * one, keys), {**static, "moves_unit": True}


def test_the_unit_moves_in_every_kernel():
    setting, static = _falling()
    xla = _with_xla(*setting, **static)
    lowest = np.abs(xla.x).min(axis=(2, 3))
    assert lowest[0, 0] < 1e-25 < 1e-6 < lowest[0, -1]
    # from there on the last bits decide
    until = 20
    for kernel in KERNELS:
        found = _with_kernel(kernel, *setting, **static)
        np.testing.assert_allclose(found.x[0, :5, :until], xla.x[0, :5, :until], rtol=1e-2)
        np.testing.assert_allclose(
            found.scaled[0, :5, :until], xla.scaled[0, :5, :until], rtol=1e-2
        )
        assert (np.abs(found.scaled) > 1e-20).all()


@pytest.mark.parametrize("num_columns", [2, 300])
def test_records_that_nobody_reads_do_no_harm(num_columns):
    """XLA aborts if it finds that a small loop computes what nothing needs."""
    setting, static = _setting(_members("reddi"), num_columns), _static(METHODS[0])

    def iterates(*setting):
        return simulate_table(*setting, kernel="cpu", **static).x

    found = jax.jit(iterates)(*setting)
    np.testing.assert_array_equal(found, _with_kernel("cpu", *setting, **static).x)


@pytest.mark.parametrize("num_columns", [1, 16, 17, 128, 129, 700])
def test_a_row_is_a_whole_number_of_blocks(num_columns):
    block = cpu.cells_per_block(2, num_columns)
    width = kernels.table.padded_width(num_columns, block, "cpu")
    assert block <= 128
    assert width % block == 0
    assert num_columns <= width < num_columns + 16 * width // block
    few = simulate.Method("cyclic")
    setting = _setting(_members("counterexample"), num_columns)
    found = _with_kernel("cpu", *setting, **_static(few, num_steps=20))
    expected = _with_xla(*setting, **_static(few, num_steps=20))
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_columns", [1, 127, 128, 1 << 20])
def test_a_row_has_a_padded_column_on_a_gpu(num_columns):
    for kernel in ("triton", "mosaic"):
        width = kernels.table.padded_width(num_columns, 128, kernel)
        assert num_columns < width <= num_columns + 128


def test_a_loop_of_a_block_is_one_compiled_function():
    """What makes blocks fast: XLA would make a call of its own of every operation of a step."""
    setting, static = _setting(_members("counterexample"), 300), _static(METHODS[0])
    compiled = jax.jit(partial(simulate_table, kernel="cpu", **static)).lower(*setting).compile()
    calls = [line for line in compiled.as_text().splitlines() if " call(" in line]
    assert any("xla_cpu_small_call" in line for line in calls)


def test_in_float64_too():
    with jax.enable_x64(True):
        setting = _setting(_members("counterexample"), 40, np.float64)
        static = _static(METHODS[2])
        # JAX's interpreter for Mosaic runs in threads to which this context does not reach
        for kernel in set(KERNELS) - {"mosaic"}:
            found = _with_kernel(kernel, *setting, **static)
            assert found.x.dtype == np.float64
            np.testing.assert_allclose(found.x, _with_xla(*setting, **static).x, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.sampling)
@pytest.mark.parametrize("name", [*ONE_DIMENSIONAL, "slope_table", "own"])
def test_it_lowers_for_cuda(name, method, dtype):
    kernel, watch = kernels.for_gpu(), method.sampling == "with_replacement"
    with jax.enable_x64(dtype == np.float64):
        setting = _setting(_members(name), 600, dtype)
        static = {"watch_underflow": watch, **_static(method)}
        program = jax.jit(partial(simulate_table, kernel=kernel, **static))
        text = program.trace(*setting).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count(_GPU_CALLS[kernel]) == 1


def test_a_moving_unit_lowers_for_cuda():
    (problem, *setting), static = _falling()
    problem = problems.stack([problems.centred(_counterexample()).problem], np.float32)
    setting[1] = setting[1].reshape(1)
    program = jax.jit(partial(simulate_table, kernel=kernels.for_gpu(), **static))
    text = program.trace(problem, *setting).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count(_GPU_CALLS[kernels.for_gpu()]) == 1


def _counterexample():
    problem = problems.counterexample(5)
    return problems.Member(problem, problem.problem_class(), exact=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_diagram_through_a_kernel_has_the_same_verdicts(kernel, monkeypatch):
    beta1, beta2 = np.linspace(0, 0.9, 7), np.linspace(0.05, 0.95, 9)
    spec = diagram.PhaseDiagram(
        "counterexample", (5, 20), ("random_shuffling",), beta1, beta2, num_steps=2000
    )
    scheme, results = "random_shuffling", []
    static = backends.program(spec, scheme).function.keywords
    interpreted = partial(kernels.simulate_table, interpret=kernel != "cpu")
    monkeypatch.setattr(kernels, "simulate_table", interpreted)
    of_tables = partial(simulation.run_table, **static, kernel=kernel)
    through_kernel = sweep.Program(of_tables, of_tables=True)
    for program in (backends.program(spec, scheme), through_kernel):
        found = {}

        def write(block, values, found=found):
            for name, value in values.items():
                whole = found.setdefault(name, np.empty(spec.table, value.dtype))
                whole[block] = value

        rows, cells = simulation.rows(spec, None), simulation.cells(spec)
        # JAX's interpreter for Mosaic cannot run two tiles at once
        tile, chunk = ((2, 63),) * 2 if kernel == "mosaic" else ((1, 25), (1, 63))
        sweep.run(program, rows, cells, tile=tile, chunk=chunk, write=write)
        results.append(found)
    xla, blocks = results
    assert xla.keys() == blocks.keys()
    bounded = np.less.outer(beta1, np.sqrt(beta2)).ravel()
    # rounding errors grow where steps are unbounded, but near D = 0 alone can they turn a verdict
    # and where none of the blocks between records counts, as the run sits at x*, the speed is 0
    clear = (np.abs(xla["speed"]) > 1e-3) | (xla["late_gap"] < 0.3)
    np.testing.assert_array_equal(blocks["diverged"][clear], xla["diverged"][clear])
    assert 0.1 < xla["diverged"].mean() < 0.9
    assert clear.mean() > 0.9
    np.testing.assert_allclose(blocks["gap"][:, bounded], xla["gap"][:, bounded], rtol=1e-4)


def test_a_spec_chooses_its_program():
    beta = np.array([0.5])
    spec = diagram.PhaseDiagram("counterexample", (5,), ("cyclic",), beta, beta)
    chosen = {}
    for backend in get_args(diagram.Backend):
        program = backends.program(dataclasses.replace(spec, backend=backend), "cyclic")
        chosen[backend] = program.of_tables, program.function.keywords.get("kernel")
    on_gpu = kernels.for_gpu()
    assert chosen == {"xla": (False, None), "blocks": (True, "cpu"), "pallas": (True, on_gpu)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"problem": "realizable_quadratics"}, None),
        ({"common_random_numbers": False}, None),
    ],
)
def test_blocks_run_where_they_can(changes, reason):
    beta = np.array([0.5])
    spec = diagram.PhaseDiagram("counterexample", (5,), ("cyclic",), beta, beta)
    spec = dataclasses.replace(spec, **changes)
    assert backends.fastest_backend(spec) == ("xla" if reason else "blocks")
    assert (reason or "None") in str(backends.reason_against("blocks", spec))
    assert "needs a GPU" in backends.reason_against("pallas", spec)


@pytest.mark.parametrize(
    ("platform", "capability", "refused"),
    [("gpu", "9.0", False), ("gpu", "10.0", False), ("gpu", "7.5", True), ("gpu", "gfx942", True),
     ("tpu", None, True), ("cpu", None, True)],
)  # fmt: skip
def test_the_kernel_asks_for_a_gpu_that_can_run_it(platform, capability, refused):
    kind = mock.Mock(
        spec=jax.Device, platform=platform, compute_capability=capability, device_kind="X"
    )
    reason = kernels.reason_against_gpu(kind)
    assert (reason is not None) == refused
    if refused:
        assert "or newer" in reason
        assert "here is X" in reason


@pytest.mark.parametrize(
    ("loss", "lowers"),
    [
        (_own_loss, True),
        (lambda x, row: row["weight"] * jax.nn.softplus(x - row["b"]), True),
        (lambda x, row: row["weight"] * jax.scipy.special.gammaln(2 + (x - row["b"]) ** 2), False),
    ],
)
def test_a_gradient_that_the_kernel_cannot_run_is_known_before(loss, lowers):
    data = {"b": np.arange(3.0), "weight": np.ones(3)}
    problem = problems.from_loss(loss, data, minimiser=0.0)
    assert plane._compiles(problem, kernel=kernels.for_gpu()) == lowers
    assert plane._compiles(problem)


@given(st.integers(1, 60), st.integers(1, 3_000_000))
def test_tiles_of_blocks_leave_work_for_all_cores(num_rows, num_columns):
    beta = np.broadcast_to(np.float64(0.5), (num_rows, num_columns))
    spec = diagram.PhaseDiagram(
        "counterexample", tuple(range(3, 3 + num_rows)), ("cyclic",), beta, beta, backend="blocks"
    )
    rows, columns = backends.tile_shape(spec)
    assert rows * columns <= 1 << 17
    tiles = -(-num_rows // rows) * -(-num_columns // columns)
    assert tiles >= min(8, num_rows * num_columns // 256)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda x, row: jnp.sort(row["a"] * x)[0], "sort"),
        (lambda x, row: jnp.abs(jnp.exp(1j * x[0]) - row["a"][0]), "complex64 does not fit"),
        (lambda x, row: jnp.sum(jnp.tanh(jnp.ones((100, 3)) @ x)) * row["a"][0], "more than 600"),
        (lambda x, row: jnp.sum((row["a"] * x) ** 2), None),
    ],
)
def test_what_cannot_be_written_out_in_numbers_is_refused(loss, reason):
    problem = problems.from_loss(loss, {"a": np.ones((4, 3))}, shape=3, minimiser=np.zeros(3))
    found = kernels.reason_against(problem, adam.ADAM)
    assert (reason or "None") in str(found)
    assert plane._compiles(problem) == (reason is None)


def test_problems_of_many_coordinates_are_refused_at_once():
    """Before a step is written out, which would take minutes for 1000 × 1000 numbers."""
    reason = kernels.reason_against(problems.nonrealizable_quadratics(3, 300), adam.ADAM)
    assert "90600 numbers enter a step; at most 600" in str(reason)


CLOSED_OVER, TABLE = jnp.float32(2.5), jnp.arange(5.0)
LOSSES = {
    "closed over": lambda x, r: CLOSED_OVER * (x - r["b"]) ** 2,
    "table closed over": lambda x, r: TABLE[r["k"] % 5] * x**2,
    "data unused": lambda x, r: x**2,
    "x unused": lambda x, r: jnp.float32(1.0),
    "nothing moves": lambda x, r: 0.0 * x,
    "equal branches": lambda x, r: jnp.where(r["flag"], x**2, x**2),
    "branch by x": lambda x, r: jax.lax.cond(x > 0, jnp.square, jnp.cos, x),
    "integers": lambda x, r: r["u"] * x**2 + jnp.where(r["k"] & 1, x, -x),
    "sum over a table": lambda x, r: jnp.sum(jnp.tanh(x * TABLE)) * r["b"],
    "bfloat16": lambda x, r: ((x - r["b"]).astype(jnp.bfloat16) ** 2).astype(jnp.float32),
    "special functions": lambda x, r: jax.scipy.special.erfinv(jnp.tanh(x)) + jnp.mod(x, 1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_users_run_in_blocks(name):
    """Inputs that are constants or unused would make XLA's compiler abort."""
    data = {
        "b": np.linspace(-1, 1, 6), "k": np.arange(6), "flag": np.arange(6) > 2,
        "u": np.arange(6, dtype=np.uint8),
    }  # fmt: skip
    problem = problems.from_loss(LOSSES[name], data, minimiser=0.0)
    assert plane._compiles(problem)
    setting = _setting([problem], 150)
    static = _static(METHODS[0], num_steps=60, record_every=20, max_components=6)
    found, expected = _with_kernel("cpu", *setting, **static), _with_xla(*setting, **static)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-5)


@given(st.floats(-3, 3), st.integers(0, 9), st.floats(-3, 3), st.booleans())
def test_the_parts_of_a_split_make_the_whole(shift, index, x, flip):
    table = jnp.arange(10.0)

    def function(row, step, draw, x, y):
        looked_up = jnp.sin(table[step["index"]] + row["shift"])
        drawn = table[draw] * looked_up
        flipped = row["flip"] & (step["index"] > 4)
        return {
            "drawn": drawn + x,
            "of_draw": drawn,
            "mixed": jnp.where(flipped, -x, x) * looked_up + y * jnp.cos(row["shift"]),
            "of_step": looked_up,
            "of_row": row["shift"] * 2,
            "constant": jnp.float32(3),
            "of_cell": y,
        }

    row = {"shift": jnp.float32(shift), "flip": jnp.array(flip)}
    shared = row, {"index": jnp.int32(index)}
    arguments = *shared, jnp.int32(9 - index), jnp.float32(x), jnp.float32(0.5)
    parts = split(function, *arguments)
    handed = parts.of_row(row), parts.of_step(*shared), parts.of_draw(*arguments[:3])
    assert not {v.dtype for values in handed for v in values} & {jnp.dtype(bool)}
    assert parts.counts == tuple(map(len, handed))
    found = parts.of_cell(*handed, *arguments[3:])
    np.testing.assert_allclose(found, jax.tree.leaves(function(*arguments)), rtol=1e-6)


@pytest.mark.parametrize("loss", [jax.nn.softplus, lambda x: jnp.log(jnp.cosh(x))])
def test_what_autodiff_leaves_behind_does_not_reach_the_kernel(loss):
    """Over loops with inputs that nothing uses, XLA's compiler for CPUs would abort."""
    slopes = {"c": jnp.array([5.0, 0.0, 0.0]), "a": jnp.array([0.0, 1.0, 1.0])}
    own = problems.from_loss(lambda x, r: r["c"] * loss(x) - r["a"] * x, slopes, minimiser=0.0)
    setting = _setting([own], 300)
    static = _static(simulate.Method("with_replacement"), max_components=3)
    found = _with_kernel("cpu", *setting, **static)
    expected = _with_xla(*setting, **static)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-5)


def test_what_cells_share_is_not_computed_in_the_kernel():
    def function(row, step, draw, x):
        return x * jnp.exp(row) * jnp.sin(step) + jnp.cos(draw)

    number = jnp.float32(0.5)
    parts = split(function, number, number, number, number)
    handed = parts.of_row(number), parts.of_step(number, number), parts.of_draw(*[number] * 3)
    text = str(jax.make_jaxpr(parts.of_cell)(*handed, number))
    assert "mul" in text
    assert not {"exp", "sin", "cos"} & set(text.split())


@pytest.mark.parametrize("method", METHODS[1:3], ids=lambda method: method.sampling)
@pytest.mark.parametrize("kernel", KERNELS)
def test_cells_may_have_streams_of_their_own(kernel, method, monkeypatch):
    """Drawn in pieces that are no multiple of an epoch or of a record."""
    monkeypatch.setitem(kernels.table._DRAWS_AT_ONCE, kernel, 2 * 256 * 50)
    problem, hyper, x0, step_size, _ = _setting(_members("counterexample"), 150)
    keys = jax.random.split(sampling.stream_key(3), (2, 150))
    static = _static(method, max_components=12)

    def one(problem, p, q, x0, step_size, key):
        cell = adam.Hyperparameters(p, q, 0.0)
        return simulate.simulate(problem, cell, x0, step_size, key, controls=controls, **static)

    controls = jnp.linspace(-1, 1, 12)
    over_columns = jax.vmap(one, in_axes=(None, 0, 0, None, None, 0))
    xla = jax.jit(jax.vmap(over_columns))(problem, *hyper[:2], x0, step_size, keys)
    rows = {"controls": jnp.broadcast_to(controls, (2, 12))}
    function = partial(simulate_table, kernel=kernel, interpret=kernel != "cpu", **static)
    found = jax.jit(lambda *args: function(*args, **rows))(problem, hyper, x0, step_size, keys)
    np.testing.assert_array_equal(found.step, xla.step)
    np.testing.assert_allclose(found.x, xla.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.control, xla.control, rtol=1e-4, atol=1e-6)


NUMBERS = st.floats(allow_nan=False, allow_subnormal=False, width=32)  # XLA flushes them on CPUs


def test_truth_values_are_negated():
    values = jnp.array([True, False])
    found = elementary.without_missing(jnp.logical_not)(values)
    np.testing.assert_array_equal(found, ~values)


@pytest.mark.parametrize("name", ["log1p", "expm1", "cosh", "sinh", "floor", "ceil", "isfinite"])
@given(number=NUMBERS)
def test_functions_that_are_written_out_are_those_of_numpy(name, number):
    replaced = elementary.without_missing(getattr(jnp, name))
    x = jnp.float32(number)
    missing = {primitive.name for primitive in elementary.MISSING}
    assert not missing & {e.primitive.name for e in jax.make_jaxpr(replaced)(x).jaxpr.eqns}
    with np.errstate(all="ignore"):
        expected = np.float32(getattr(np, name)(np.float64(x)))
    np.testing.assert_allclose(replaced(x), expected, rtol=6e-7, atol=np.finfo(np.float32).tiny)


def test_sizes_of_blocks_are_what_the_kernels_can_run():
    for sizes, least in ((tuned.TRITON, 32), (tuned.MOSAIC, 128)):
        assert sizes[0].cells == 0
        assert [size.cells for size in sizes] == sorted({size.cells for size in sizes})
        for cells, block, _ in sizes:
            assert block % least == 0
            assert tuned.choose(sizes, max(1, cells)) == tuned.choose(sizes, cells + 1)


def test_the_fastest_kernel_is_one_that_can_run(monkeypatch):
    quadratics = problems.nonrealizable_quadratics(5, 3)
    sorted_loss = problems.from_loss(lambda x, a: jnp.sort(a * x)[0], np.ones((4, 2)), shape=2)
    assert kernels.fastest(quadratics, adam.ADAM) == "cpu"
    assert kernels.fastest(sorted_loss, adam.ADAM) is None
    # a GPU, but not one for the kernel
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert kernels.fastest(problems.counterexample(5), adam.ADAM) is None
    monkeypatch.setattr(kernels.table, "reason_against_gpu", lambda device: None)
    assert kernels.fastest(problems.counterexample(5), adam.ADAM) == kernels.for_gpu()
    assert kernels.fastest(quadratics, adam.ADAM) is None
