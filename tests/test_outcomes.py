"""Late losses, spikes, and the window of good β2."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adam_transition.networks import outcomes

GUESS = math.log(10)


def test_late_loss_is_the_mean_of_the_last_quarter():
    loss = np.array([[9.0, 5, 4, 3, 2, 1, 1, 3], [9, 8, 7, 6, 5, 4, np.nan, 1]])
    np.testing.assert_array_equal(outcomes.late_loss(loss), [2, np.inf])


def test_spikes_are_counted_once_each():
    loss = np.array([2.0, 1, 1.4, 1.6, 9, 1.2, 0.5, 0.8, np.inf, 0.4, 0.4])
    # up at 1.6 (stays up at 9), at 0.8 (stays up at inf)
    assert outcomes.spikes(loss) == 2
    assert outcomes.spikes(np.geomspace(1, 1e-3, 50)) == 0


@given(hnp.arrays(float, 12, elements=st.floats(1e-3, 1e3)), st.floats(1e-2, 1e2))
def test_spikes_do_not_depend_on_the_unit_of_the_loss(loss, scale):
    shifted = loss * 2.0 ** round(math.log2(scale))  # exact
    assert outcomes.spikes(loss) == outcomes.spikes(shifted)


def _curve(q, low, high, floor=0.1):
    """Log loss that rises linearly in log q beyond both edges of the plateau."""
    u = np.log(q)
    rise = np.maximum(u - math.log(low), 0) + np.maximum(math.log(high) - u, 0)
    return floor * np.exp(rise)


def test_the_window_is_where_the_curve_crosses_the_level():
    """Between grid points the crossing is exact for a loss that is a power of 1 − β2."""
    q = np.geomspace(1e-5, 0.5, 200)
    low, high, floor = 3e-2, 1e-4, 0.1
    found = outcomes.window(q, _curve(q, low, high)[None], GUESS)
    tolerance = outcomes.TOLERANCE * (math.log(GUESS) - math.log(floor))
    assert found.low[0] == pytest.approx(low * math.exp(tolerance), rel=1e-3)
    assert found.high[0] == pytest.approx(high / math.exp(tolerance), rel=1e-3)


def test_the_window_does_not_depend_on_the_order_of_the_grid():
    q = np.geomspace(1e-5, 0.5, 16)
    late = _curve(q, 3e-2, 1e-4)[None]
    one, other = outcomes.window(q, late, GUESS), outcomes.window(q[::-1], late[:, ::-1], GUESS)
    np.testing.assert_array_equal(one, other)


def test_edges_that_are_not_on_the_grid():
    q = np.geomspace(1e-5, 0.5, 16)
    flat = outcomes.window(q, np.full((1, 16), 0.3), GUESS)
    assert (flat.low[0], flat.high[0]) == (math.inf, 0)
    learnt_nothing = outcomes.window(q, np.full((1, 16), 3.0), GUESS)
    assert np.isnan(learnt_nothing).all()
    overflow = np.where(q > 0.1, np.inf, 0.3)[None]
    assert 1e-2 < outcomes.window(q, overflow, GUESS).low[0] < 0.2
    with pytest.raises(ValueError, match="β2 < 1"):
        outcomes.window(np.array([0.0, 0.1]), np.ones((1, 2)), GUESS)


def test_good_cells():
    plane = np.log(np.full((10, 10), 0.1))
    plane[0] = np.log(0.1) + 0.14 * math.log(GUESS / 0.1)
    plane[1] = np.log(0.1) + 0.16 * math.log(GUESS / 0.1)
    plane[2] = np.inf
    good = outcomes.is_good(plane, GUESS)
    assert good[0].all()
    assert not good[1:3].any()
    assert good[3:].all()
    assert not outcomes.is_good(np.full((3, 3), np.inf), GUESS).any()


def test_statistics_over_seeds():
    found = outcomes.mean(np.array([1.0, 2.0, 3.0]))
    assert found.value == 2
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert math.isnan(outcomes.mean(np.array([1.0])).half_width)
    x = np.array([1.0, 2, 4, 8])
    y = np.stack([3 * x**1.5, x**0.5])
    np.testing.assert_allclose(outcomes.exponents(x[:, None], y), [[1.5, 0.5]])
    assert np.isnan(outcomes.exponents(x[2:, None], y[:, 2:])).all()  # as many points as unknowns
    z = np.array([1.0, 3, 3, 9])
    both = np.stack([x**1.5 / z, x * z**0.25])
    found = outcomes.exponents(np.stack([x, z], 1), both)
    np.testing.assert_allclose(found, [[1.5, 1], [-1, 0.25]])
    assert np.isnan(outcomes.exponents(np.stack([x, x**2], 1), both)).all()  # the same direction
    censored = np.array([[1.0, 2, np.inf, np.inf], [np.nan, 3, 2, 1], [np.nan, np.nan, 1, 2]])
    tau = outcomes.trend(x, censored)
    assert tau[0] == pytest.approx(5 / math.sqrt(6 * 5))  # tau-b: one pair of six is tied
    assert tau[1] == -1
    assert np.isnan(tau[2])


def test_the_best_point_is_chosen_by_the_other_seeds():
    """Pure noise has no optimum: the mean excess is zero within its standard error."""
    rng = np.random.default_rng(0)
    excess = np.concatenate(
        [
            outcomes.excess_at_the_end(np.exp(0.1 * rng.standard_normal((4, 16))), -1)
            for _ in range(500)
        ]
    )
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(len(excess) / 4)
    falling = np.tile(np.exp(-np.arange(8.0)), (3, 1))
    np.testing.assert_array_equal(outcomes.excess_at_the_end(falling, -1), 0)
