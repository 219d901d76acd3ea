"""Progress and squares of a table's steps relative to their limits as β2 → 1, with errors."""

from typing import NamedTuple

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int, Key
from scipy import special

from adam_transition.advise import field, sampling_error
from adam_transition.advise.sampling_error import ConfidenceInterval, HalfWidths
from adam_transition.advise.tables import GradientTable, checked_rows
from adam_transition.sweeps import keys

_NUM_COMBINED = 2048  # rows of the table for a larger batch, or a few more
_LEAST_TILTED = 4  # independent larger batches in the table that a tilt needs

_N, _L, _S, _T = range(4)  # ⟨∇f, step⟩ and its limit, mean square step and its limit


class Sums(NamedTuple):
    """Four sums over coordinates at Q values of β2, with their errors.

    They are, in order: ⟨∇f, E[m/(√v+ε)]⟩, its limit, E‖m/(√v+ε)‖², its limit.
    """

    value: Float[np.ndarray, "4 Q"]
    debiased: Float[np.ndarray, "4 Q"]  # without the noise of the mean gradient
    tailed: Float[np.ndarray, "4 Q"]  # `debiased`, with rows beyond the largest
    influence: Float[np.ndarray, "n 4 Q"]  # of the rows; no rows if the table is complete
    between: Float[np.ndarray, "4 4 Q"]  # covariance due to the choice of coordinates, estimated
    drawn: Float[np.ndarray, "4 4 Q"]  # covariance due to the drawing of larger batches
    tilted: Float[np.ndarray, "2 2 Q"]  # mean square and limit with the rows tilted down and up
    wrong_mass: Float[np.ndarray, " Q"]


class Ratios(NamedTuple):
    """The ratios of one batch size at Q values of β2; see `Probe`."""

    progress: Float[np.ndarray, " Q"]
    progress_interval: ConfidenceInterval
    squares: Float[np.ndarray, " Q"]
    squares_interval: ConfidenceInterval
    wrong_mass: Float[np.ndarray, " Q"]

    @property
    def progress_stderr(self) -> Float[np.ndarray, " Q"]:
        """Distance to the farther end of the interval over 1.96; infinite if progress is."""
        low, high = (np.asarray(end) for end in self.progress_interval)
        with np.errstate(invalid="ignore"):
            farther = np.maximum(high - self.progress, self.progress - low) / 1.96
        return np.where(np.isfinite(self.progress), farther, np.inf)


def ratios(
    table: GradientTable,
    q: Float[np.ndarray, " Q"],
    key: Key[Array, ""],
    p: float,
    epsilon: float,
    factor: int,
) -> Ratios:
    """The ratios of a table at 1 − β1 = p, with batches `factor` times as large; see `sums`."""
    return ratios_of(sums(table, q, key, p, epsilon, factor))


def ratios_of(found: Sums) -> Ratios:
    """The ratios and their intervals."""
    n, limit, s, square_limit = found.value
    with np.errstate(invalid="ignore", divide="ignore"):
        progress, squares = n / limit, s / square_limit
    low, high = _with_tilted(found, squares, _ratio(found, _S, _T))
    squares_interval = ConfidenceInterval(np.maximum(low, 0), high)
    return Ratios(progress, _ratio(found, _N, _L), squares, squares_interval, found.wrong_mass)


def contrast(found: Sums, coefficients: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " Q"]:
    """A linear combination of the four sums of the table at each β2."""
    used = coefficients[:, None] != 0
    return (coefficients[:, None] * np.where(used, found.value, 0)).sum(axis=0)


def _with_tilted(
    found: Sums, squares: Float[np.ndarray, " Q"], interval: ConfidenceInterval
) -> ConfidenceInterval:
    """The interval, widened to the values of the tilted tables."""
    ends = [interval]
    c = np.stack([np.ones_like(squares), -squares]) / found.value[_T]
    rest = (found.between + found.drawn)[_S:, _S:]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 1.96 * np.sqrt(np.maximum(np.einsum("ijq,iq,jq->q", rest, c, c), 0))
        for square, limit in found.tilted:
            shift = square / limit - squares
            size = np.hypot(shift, error)
            ends.append(
                ConfidenceInterval(
                    np.where(shift < 0, squares - size, squares),
                    np.where(shift > 0, squares + size, squares),
                )
            )
    low, high = zip(*ends, strict=True)
    return ConfidenceInterval(np.fmin.reduce(low), np.fmax.reduce(high))


def _half_widths(found: Sums, c: Float[np.ndarray, "4 Q"]) -> HalfWidths:
    """Half-widths of the interval of the linear combination with these coefficients."""
    rows = HalfWidths(np.zeros(c.shape[1]), np.zeros(c.shape[1]))
    if len(found.influence):
        rows = sampling_error.half_widths(np.einsum("ijq,jq->iq", found.influence, c))
    rest = sum(
        np.maximum(np.einsum("ijq,iq,jq->q", one, c, c), 0) for one in (found.between, found.drawn)
    )
    return HalfWidths(*(np.sqrt(side**2 + 1.96**2 * rest) for side in rows))


def _ratio(found: Sums, over: int, under: int) -> ConfidenceInterval:
    """Fieller's interval: the ratios r for which the contrast over − r·under may be 0."""
    lows, highs = [], []
    for values in (found.debiased, found.tailed):
        a, b = values[over], values[under]
        with np.errstate(invalid="ignore", divide="ignore"):
            guess = np.where(b > 0, a / b, 0.0)
        known = np.isfinite(guess)
        guess = np.where(known, guess, 0.0)
        rest = np.where(known, a, 0) - guess * b

        def half(of_over: float, of_under: np.ndarray, guess: np.ndarray = guess) -> HalfWidths:
            c = np.zeros((4, len(guess)))
            c[over], c[under] = of_over, of_under
            return _half_widths(found, c)

        # if r is too large the contrast is below 0, and an upward error can make it 0
        at, z = half(1, -guess), half(0, np.ones_like(b)).down
        below, above = half(1, 1 - guess).down, half(1, -1 - guess).up
        low = guess - _fieller(-rest, b, at.down, below, z)
        high = guess + _fieller(rest, b, at.up, above, z)
        # an infinite value has no error
        lows.append(np.where(known, low, values[over]))
        highs.append(np.where(known, high, values[over]))
    return ConfidenceInterval(np.minimum(*lows), np.maximum(*highs))


def _fieller(
    rest: np.ndarray, b: np.ndarray, at: np.ndarray, one: np.ndarray, z: np.ndarray
) -> Float[np.ndarray, " Q"]:
    """The largest d at which rest − d·b may be 0; infinite if b may be 0.

    Its half-widths are √(at² − 2 d·slope + d² z²), with the value `one` at d = 1.
    """
    # clipped because a variance is never negative, though half-widths of skewed errors may say so
    slope = np.clip((at**2 + z**2 - one**2) / 2, -at * z, at * z)
    quadratic = b**2 - z**2
    linear = rest * b - slope
    root = np.sqrt(np.maximum(linear**2 - quadratic * (rest**2 - at**2), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        end = (linear + root) / quadratic
    return np.where((b > 0) & (b > z), end, np.inf)


def sums(
    table: GradientTable,
    q: Float[np.ndarray, " Q"],
    key: Key[Array, ""],
    p: float,
    epsilon: float,
    factor: int,
    *,
    errors: bool = True,
) -> Sums:
    """The sums over the coordinates of a table.

    Args:
      table: the gradients.
      q: values of 1 − β2.
      key: for drawing larger batches.
      p: 1 − β1.
      epsilon: outside the square root, in the units of the gradient.
      factor: batch size in units of that of the table.
      errors: whether to compute more than `value` and `wrong_mass`.

    Raises:
      ValueError: table is not a table, or has rows that `checked_rows` rejects.
    """
    rows, epsilon = _scaled(table, epsilon)
    n, k = rows.shape
    sampled = errors and not table.complete
    parts = _parts(n, factor, key)  # [m, factor] rows of each combined one
    spread = _spread(parts, n)
    exponents = sampling_error.tail_exponents(rows)
    total, residual = np.zeros((n, 4, len(q))), np.zeros((len(parts), 4, len(q)))
    value, bias, tailed = np.zeros((3, 4, len(q)))
    each, within = np.zeros((k, 4, len(q))), np.zeros((4, 4, len(q)))
    wrong, mass = np.zeros(len(q)), 0.0
    for i, column in enumerate(rows.T):
        mean, combined = column.mean(), column
        if factor > 1:
            combined = column[parts].mean(axis=1)
        by_mean = np.array([mean, mean, 1, 1])[:, None]  # the first two are products with ∇f
        found, influence = _of_column(combined, p, q, epsilon, errors=errors)
        each[i] = by_mean * found
        value += each[i]
        mass += abs(mean)
        wrong += np.where(found[_N] * mean < 0, abs(mean), 0)
        if not errors:
            continue
        own = influence
        if factor > 1:
            own = (spread @ influence.reshape(len(parts), -1)).reshape(n, 4, len(q))
            residual += by_mean * (influence - own[parts].sum(axis=1) / factor)
        if not sampled:
            continue
        # ∇f and the step are from the same rows: subtract the products of rows with themselves
        centred = column - mean
        bias[:2] += np.einsum("i,iaq->aq", centred, own[:, :2]) / (n * (n - 1))
        own = by_mean * own
        # an infinite step has no error
        own[:, :2] += centred[:, None, None] * np.where(np.isfinite(found[:2]), found[:2], 0)
        total += own
        within += np.einsum("iaq,ibq->abq", own, own) / (n * (n - 1))
        tail = sampling_error.with_tail(column, float(exponents[i]), num_drawn=factor)
        if tail is not None:
            known = np.isfinite(each[i])
            more = _with_tail(tail, combined, mean, p, q, epsilon, factor)
            tailed += np.where(known, more - np.where(known, each[i], 0), 0)
    drawn = np.einsum("iaq,ibq->abq", residual, residual) / len(parts) ** 2
    tilted = np.repeat(value[None, _S:], 2, axis=0)
    if sampled and factor <= n // _LEAST_TILTED:
        weights = _tilted_weights(value, total, parts)
        for column, own in zip(rows.T, each, strict=True):
            combined = column if factor == 1 else column[parts].mean(axis=1)
            tilted += _moved_by(weights, combined, own, p, q, epsilon)
    between = np.zeros_like(within)
    if errors and k < table.num_parameters:
        between = (1 - k / table.num_parameters) * _between(each) - within
    return Sums(
        value, value - bias, value - bias + tailed, total[: n if sampled else 0], between, drawn,
        tilted, wrong / mass,
    )  # fmt: skip


def _scaled(table: GradientTable, epsilon: float) -> tuple[Float[np.ndarray, "n k"], float]:
    """The rows in units of the largest gradient, and ε.

    Only gradients over ε matter. In these units no square overflows, nor does that of an ε which
    alone is the denominator.
    """
    if not isinstance(table, GradientTable):
        raise ValueError(
            f"table is a {type(table).__name__}: needs a GradientTable, as gradient_table or "
            "GradientTable.from_rows makes it"
        )
    rows = checked_rows(table.rows)
    largest = np.abs(rows).max()
    if largest == 0:
        raise ValueError("rows: all gradients are zero, so that there is no step to compare")
    return rows / largest, float(min(epsilon / largest, field.LINEAR))


def _between(each: Float[np.ndarray, "k 4 Q"]) -> Float[np.ndarray, "4 4 Q"]:
    """The covariance of the sum over k coordinates, from how they differ."""
    k = len(each)
    deviation = each - each.mean(axis=0) if k > 1 else each
    return np.einsum("iaq,ibq->abq", deviation, deviation) * (k / max(k - 1, 1))


def _spread(parts: Int[np.ndarray, "m factor"], n: int) -> scipy.sparse.csr_array:
    """Maps influences of combined rows to those of rows, of which each has `factor` draws."""
    factor = parts.shape[1]
    places = parts.ravel(), np.arange(len(parts)).repeat(factor)
    spread = scipy.sparse.csr_array((np.ones(parts.size), places), shape=(n, len(parts)))
    return spread * (factor * n / parts.size)


def _moved_by(
    weights: np.ndarray,
    column: Float[np.ndarray, " m"],
    own: Float[np.ndarray, "4 Q"],
    p: float,
    q: Float[np.ndarray, " Q"],
    epsilon: float,
) -> Float[np.ndarray, "2 2 Q"]:
    """How far the sums of a coordinate move under tilted weights; 0 where they are infinite."""
    found, _ = _of_column(column, p, np.tile(q, 2), epsilon, weights, errors=False)
    moved = found[_S:].reshape(2, 2, -1).swapaxes(0, 1)
    known = np.isfinite(own[_S:])
    return np.where(known, moved - np.where(known, own[_S:], 0), 0)


def _tilted_weights(
    value: Float[np.ndarray, "4 Q"],
    influence: Float[np.ndarray, "n 4 Q"],
    parts: Int[np.ndarray, "m factor"],
) -> Float[np.ndarray, "2*Q m"]:
    """Weights of the combined rows that move the squares of single steps down and up."""
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = value[_S] / value[_T]
        of_ratio = (influence[:, _S] - squares * influence[:, _T]) / value[_T]
    logs = sampling_error.tilts(np.where(np.isfinite(squares), of_ratio, 0))
    found = special.softmax(logs[..., parts].sum(axis=-1), axis=-1)
    return found.reshape(-1, len(parts))


def _of_column(
    column: Float[np.ndarray, " m"],
    p: float,
    q: Float[np.ndarray, " Q"],
    epsilon: float,
    weights: Float[np.ndarray, "#Q m"] | None = None,
    *,
    errors: bool,
) -> tuple[Float[np.ndarray, "4 Q"], Float[np.ndarray, "rows 4 Q"]]:
    """Step, its limit, square and its limit for one coordinate; and their influences."""
    found = field.steps(column, p, q, epsilon, weights, influences=errors)
    share = np.full((1, len(column)), 1 / len(column)) if weights is None else weights
    mean, square = share @ column, share @ column**2
    root = np.sqrt(square)
    size = np.where(root > 0, root, 1) + epsilon
    variance = square - mean**2
    first = mean**2 + p / (2 - p) * variance  # E[m²]
    limit, square_limit = mean / size, first / size**2
    value = np.empty((4, len(q)))
    value[_N], value[_L] = found.mean.value, limit
    value[_S], value[_T] = found.square.value, square_limit
    influence = np.zeros((len(column) if errors else 0, 4, len(q)))
    if errors and root[0] > 0:
        centred, squared = column - mean, column**2 - square
        by_size = squared / (2 * root * size)
        of_limit = centred / size - limit * by_size
        of_first = 2 * mean * centred + p / (2 - p) * (squared - 2 * mean * centred)
        influence[:, _N], influence[:, _S] = found.mean.influence, found.square.influence
        influence[:, _L] = of_limit[:, None]
        influence[:, _T] = (of_first / size**2 - 2 * square_limit * by_size)[:, None]
    return value, influence


def _with_tail(
    tail: sampling_error.Tail, combined: np.ndarray, mean: float, p: float, q: np.ndarray,
    epsilon: float, factor: int,
) -> Float[np.ndarray, "4 Q"]:  # fmt: skip
    """The four sums of one coordinate if it had rows beyond its largest."""
    column, weights, _ = tail
    if factor > 1:
        extra = len(tail.column) - tail.num_rows
        column = np.concatenate([combined, column[-extra:] / factor + mean * (1 - 1 / factor)])
        seen = 1 - weights[-extra:].sum()
        weights = np.concatenate([np.full(len(combined), seen / len(combined)), weights[-extra:]])
    found, _ = _of_column(column, p, q, epsilon, weights[None], errors=False)
    return np.array([mean + (weights @ column - mean)] * 2 + [1, 1])[:, None] * found


def _parts(n: int, factor: int, key: Key[Array, ""]) -> Int[np.ndarray, "m factor"]:
    """The rows that make up each larger batch; every row is drawn equally often.

    So the mean is exactly that of the table. Shifting the batches to it instead would change small
    gradients, whose sign matters if the noise is heavy-tailed.
    """
    if factor == 1:
        return np.arange(n)[:, None]
    generator = keys.generator(jax.random.fold_in(keys.checked(key), factor))
    count = factor * -(-_NUM_COMBINED // n)
    return generator.permutation(np.repeat(np.arange(n), count)).reshape(-1, factor)
