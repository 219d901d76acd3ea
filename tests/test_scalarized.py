"""Programs of arrays written out in single numbers: the same values, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition.kernels.scalarized import NotScalarizedError, numbers, scalarized

A, B = jnp.arange(6.0).reshape(2, 3) - 2, jnp.linspace(-1, 2, 12).reshape(2, 3, 2)
V, W = jnp.array([0.5, -1.0, 2.0]), jnp.array([3.0, 1.0, -2.0])


def _written_out(function, *arguments):
    """The results of the program in single numbers, put together to arrays again."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    found = scalarized(program)(*map(numbers, arguments))
    return [np.array([float(x) for x in one.flat]).reshape(one.shape) for one in found]


FUNCTIONS = {
    "matrix times vector": lambda a, b, v, w: a @ v,
    "outer product": lambda a, b, v, w: jnp.einsum("i,j->ij", v, w),
    "batched product": lambda a, b, v, w: jnp.einsum("bi,bij->bj", a, b),
    "two sums": lambda a, b, v, w: jnp.einsum("bi,bij->j", a, b),
    "product of products": lambda a, b, v, w: jnp.vdot(a @ a.T, a @ a.T),
    "sums over axes": lambda a, b, v, w: (b.sum((0, 2)), b.max(1), a.min(), a.prod(0), a.sum(())),
    "truth": lambda a, b, v, w: (jnp.all(a > -3, axis=1) * 1.0, jnp.any(v > 1) * 1.0),
    "moves": lambda a, b, v, w: (a.T[::-1], b[:, 1:, 0], jnp.concatenate([v, w])[2:5], v[None]),
    "padding": lambda a, b, v, w: jax.lax.pad(a, w[0], [(1, -1, 2), (-1, 2, 0)]),
    "split": lambda a, b, v, w: jnp.split(v, [1]),
    "elementwise": lambda a, b, v, w: jnp.where(v > 0, jnp.tanh(v), jnp.clip(w, -1, v**2)) / 3,
    "a number and an array": lambda a, b, v, w: jnp.maximum(a, v[0]) + jnp.float32(2),
    "a gradient": jax.grad(lambda a, b, v, w: jnp.linalg.norm(a @ v) * v[1] + jnp.max(v * w), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_program(name):
    def without_calls(*arguments):
        with jax.disable_jit():
            return FUNCTIONS[name](*arguments)

    expected = jax.tree.leaves(FUNCTIONS[name](A, B, V, W))
    found = _written_out(without_calls, A, B, V, W)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_products_are_summed_in_the_type_that_is_asked_for():
    one = jnp.full(3, 1.0 + 2.0**-7, jnp.bfloat16)  # its square needs more digits
    found = _written_out(lambda v: jnp.dot(v, v, preferred_element_type=jnp.float32), one)
    assert found[0] == 3 * (1 + 2.0**-7) ** 2


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_products_of_any_shape(rows, columns, seed):
    generator = np.random.default_rng(seed)
    matrix, vector = (jnp.asarray(generator.normal(size=s)) for s in ((rows, columns), columns))
    found = _written_out(lambda m, v: (m @ v, v @ m.T @ m), matrix, vector)
    for one, other in zip(found, (matrix @ vector, vector @ matrix.T @ matrix), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (jnp.sort, "sort"),
        (jnp.cumsum, "cumsum"),
        (lambda v: v[jnp.argmax(v)], "argmax"),
        (lambda v: jnp.linalg.cholesky(jnp.outer(v, v)), "cholesky"),
        (lambda v: jnp.tile(v, 400) * 2, "more than 600"),
    ],
)
def test_others_are_refused_by_name(function, reason):
    def without_calls(v):
        with jax.disable_jit():
            return function(v)

    with pytest.raises(NotScalarizedError, match=reason):
        _written_out(without_calls, V)
