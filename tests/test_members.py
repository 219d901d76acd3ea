"""Random members of a problem class: in the class, with its constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import problems, sampling
from adam_transition.problems import ProblemClass

_CASES = [
    (family, dimension)
    for family in problems.FAMILIES
    for dimension in ([1] if family == "counterexample" else [1, 3, 50])
]


@pytest.mark.parametrize(("family", "dimension"), _CASES)
def test_random_members_are_members(family, dimension):
    noisy = family not in ("realizable_quadratics", "counterexample")
    wanted = ProblemClass(6, 2.0, 0.25 if noisy else 0, 90.0)
    member = problems.random_member(wanted, family, dimension, sampling.stream_key(3))
    assert wanted.contains(member.problem_class)
    rng = np.random.default_rng(1)
    shape = () if family == "counterexample" else (dimension,)
    radii = np.geomspace(0.01, 30, 60).reshape(60, *[1] * len(shape))
    points = radii * rng.standard_normal((60, *shape))
    with jax.enable_x64(True):
        assert member.problem_class.violations(member.problem, jnp.asarray(points)) == []
        if member.problem.minimiser is not None:
            x = jnp.asarray(member.problem.minimiser, jnp.float64)
            gradient = problems.full_gradient(member.problem, x, 6)
            np.testing.assert_allclose(gradient, np.zeros(shape), atol=1e-9)
    if member.exact:
        assert float(member.problem_class.d1) == pytest.approx(90)
        assert member.problem_class.d0 == wanted.d0
    again = problems.random_member(wanted, family, dimension, sampling.stream_key(3))
    assert jax.tree.all(jax.tree.map(np.array_equal, member.problem, again.problem))


@pytest.mark.parametrize("family", ["logistic", "geman_mcclure"])
def test_gradients_of_regressions_are_those_of_the_values(family):
    wanted = ProblemClass(4, 3.0, 0.5, 30.0)
    problem = problems.random_member(wanted, family, 3, sampling.stream_key(0)).problem
    with jax.enable_x64(True):
        for x in np.random.default_rng(0).standard_normal((5, 3)):
            for i in range(4):
                expected = jax.grad(lambda x, i=i: problem.value(i, x))(jnp.asarray(x))
                np.testing.assert_allclose(problem.gradient(i, jnp.asarray(x)), expected, rtol=1e-9)


def test_constants_of_regressions_are_attained():
    """D0 as asked for is reached: a class with one percent less does not hold the problem."""
    wanted = ProblemClass(5, 1.0, 0.02, 20.0)
    for family in ("logistic", "geman_mcclure"):
        member = problems.random_member(wanted, family, 4, sampling.stream_key(0))
        starts = np.random.default_rng(5).standard_normal((40, 4)) * 3
        found = problems.least_d0(member.problem, 20.0, starts)
        assert found == pytest.approx(float(member.problem_class.d0), rel=1e-3)
        assert found == pytest.approx(0.02, rel=1e-2)


def test_least_d0_is_that_of_the_closed_form():
    member = problems.nonrealizable_quadratics(5, 3)
    exact = member.problem_class(12.0)
    found = problems.least_d0(member, 12.0, np.random.default_rng(0).standard_normal((4, 3)))
    assert found == pytest.approx(exact.d0, rel=1e-6)


@pytest.mark.parametrize("family", ["realizable_quadratics", "counterexample"])
def test_a_centred_member_is_the_same_in_other_coordinates(family):
    wanted = ProblemClass(6, 2.0, 0, 90.0)
    member = problems.random_member(wanted, family, 1, sampling.stream_key(3))
    moved = problems.centred(member)
    assert not np.any(moved.problem.minimiser)
    assert moved.problem_class == member.problem_class
    with jax.enable_x64(True):
        star = jnp.asarray(member.problem.minimiser, jnp.float64)
        for z in (-2.0, -1e-3, 0.0, 0.5, 1.5):
            z = jnp.full(star.shape, z)
            for i in range(6):
                expected = member.problem.gradient(i, star + z)
                np.testing.assert_allclose(moved.problem.gradient(i, z), expected, atol=1e-12)
                expected = member.problem.value(i, star + z)
                np.testing.assert_allclose(moved.problem.value(i, z), expected, atol=1e-12)
        # nothing is left of x*: gradients are proportional to z however small it is
        tiny = jnp.full(star.shape, 1e-200)
        ratio = moved.problem.gradient(0, tiny) / moved.problem.gradient(0, 1e-3 + 0 * tiny)
        np.testing.assert_allclose(ratio, 1e-197, rtol=1e-12)


def test_regressions_have_no_centred_form():
    wanted = ProblemClass(5, 1.0, 0.02, 20.0)
    member = problems.random_member(wanted, "logistic", 2, sampling.stream_key(0))
    with pytest.raises(ValueError, match="Regression has no centred form"):
        problems.centred(member)


@pytest.mark.parametrize(
    ("family", "dimension", "d0", "message"),
    [
        ("lasso", 1, 0.0, "family='lasso' is not one of"),
        ("logistic", 0, 0.1, "dimension=0"),
        ("counterexample", 2, 0.0, "dimension=2"),
        ("logistic", 2, 0.0, "d0=0.0: logistic needs D0 > 0"),
    ],
)
def test_members_that_cannot_be(family, dimension, d0, message):
    with pytest.raises(ValueError, match=message):
        problems.random_member(
            ProblemClass(5, 1, d0, 50), family, dimension, sampling.stream_key(0)
        )
