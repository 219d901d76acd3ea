"""Claims of `experiments.theorem_3_1` and `theorem_3_3`, from their data set.

A rate is judged triple by triple: a slope is too slow if it exceeds what the theorem allows by more
than Student's quantile times its standard error, which happens by chance with probability `LEVEL`.
So among many triples at which the theorem holds, at most that share is called too slow. The error
of the share is a jackknife over index streams, as all triples share the same streams.

The theorems hold for T large enough. How large is decided before any run: the first window of T,
which ends at T/16, must hold `MEMORIES` times 1/(1 − β2) steps, and by its beginning the exact
drift must have carried the iterate twice the initial distance from x*.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # imports its modules lazily
import xarray as xr
from jaxtyping import Float

from adam_transition.studies.theorems.conditions import DIMENSIONS
from adam_transition.studies.theorems.data import MEMORIES, REGION_C
from adam_transition.studies.theorems.families import START
from adam_transition.studies.theorems.neighbourhood import (
    MANY_DIMENSIONS,
    SKEWED_N,
    settled_limit,
)
from adam_transition.studies.theorems.reddi import BEYOND
from adam_transition.sweeps.claims import Claim, assess, assess_equal
from adam_transition.theory import convergence

LEVEL = 0.025
"""The share of true slopes called too slow by chance: one side of a 95 % interval."""
_ROUNDING = 1e-5  # of a slope: means are computed in float32
_FIT = 1.5  # β2 is good if the left-hand side is within this factor of its minimum: a convention
_MISS = 0.1  # resolution of a limit point, as a fraction of the bias: a convention
_AT_WALL = 0.9  # |x| on Reddi et al.'s example that counts as having reached ±1: a convention

_NAMES = {"with_replacement": "Theorem 3.1", "random_shuffling": "Theorem 3.3"}


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Judges the theorem's statements, what it leaves open, and cases outside its hypotheses."""
    theorem = _NAMES[dataset.attrs["theorem_sampling"]]
    return [
        *_rate(dataset, theorem),
        *_neighbourhood(dataset, theorem),
        *_dimensions(dataset, theorem),
        *_window(dataset, theorem),
        *_conditions(dataset, theorem),
        *_reddi(dataset),
    ]


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each n: how many triples meet the hypotheses, and a lower bound on the unknown constant.

    `largest_c` is the largest C with β2 = 1 − C(1−β1^n)/n^5 among the triples at which x* attracts
    on the counterexample: on this problem the theorem's constant could be at least that large.
    `region_one_minus_beta2` is the range run in the theorem's own region with C = `REGION_C`; None
    if that is empty, as T would have to be larger.
    """
    found = []
    conditions = _hypotheses(dataset, "counterexample")
    for i, n in enumerate(dataset["n"].values.tolist()):
        here = conditions.hold[i]
        region = dataset["region_q"].sel(n=n).values
        told = bool(np.isfinite(region).all())
        found.append(
            {
                "n": n,
                "triples": here.size,
                "hypotheses_hold": int(conditions.bounded_steps[i].sum()),
                "attracting": int(here.sum()),
                "largest_c": float(conditions.needed_constant[i][here].max())
                if here.any()
                else None,
                "region_one_minus_beta2": [region.min(), region.max()] if told else None,
            }
        )
    return found


def _hypotheses(dataset: xr.Dataset, family: str) -> convergence.Hypotheses:
    """The hypotheses at every (n, triple) on a family of problems."""
    drift, stderr = (
        dataset[name].sel(family=family).transpose("n", "triple").values
        for name in ("drift", "drift_stderr")
    )
    beta1, q = (
        dataset[name].transpose("n", "triple").values for name in ("beta1", "one_minus_beta2")
    )
    n = dataset["n"].values[:, None]
    return convergence.hypotheses(n, beta1, q, drift=drift, drift_stderr=stderr)


def _large_enough(dataset: xr.Dataset) -> xr.DataArray:
    """Whether T is large enough for each triple, by its memory alone if the drift is unknown."""
    begin = float(dataset["octave"][0]) / 2
    remembers = dataset["one_minus_beta2"] * begin >= MEMORIES
    carried = abs(dataset["drift"]) / dataset["n"] * 2 * dataset.attrs["step_size"] * begin**0.5
    return remembers & ((carried >= 2 * START) | dataset["drift"].isnull())


def _quantile(num_seeds: int, level: float = LEVEL) -> float:
    """Student's t: the half-width of an interval in standard errors, estimated from few seeds."""
    return float(scipy.stats.t.ppf(1 - level, num_seeds - 1))


def _share(
    flags: Callable[[np.ndarray], np.ndarray], stationarity: np.ndarray
) -> tuple[float, float]:
    """The share of (seed, cell, octave) that a test flags, with its error."""
    if stationarity.shape[1] == 0:
        return np.nan, np.nan

    def share(values: np.ndarray) -> np.ndarray:
        return np.asarray(flags(values).mean())

    error = convergence.jackknife_stderr(convergence.without_each(share, stationarity))
    return float(share(stationarity)), _quantile(len(stationarity)) * float(error)


def _slower(stationarity: np.ndarray, than: float) -> np.ndarray:
    found = convergence.rate(stationarity)
    return found.slope - _quantile(len(stationarity)) * found.stderr > than


def _falls(stationarity: np.ndarray) -> np.ndarray:
    found = convergence.rate(stationarity)
    return found.slope + _quantile(len(stationarity)) * found.stderr < -_ROUNDING


def _median(stationarity: np.ndarray) -> tuple[float, float]:
    """The median slope and its error."""
    if stationarity.shape[1] == 0:
        return np.nan, np.nan

    def median(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(convergence.slope(values)))

    with np.errstate(invalid="ignore"):  # an infinite median has no error
        error = np.nan_to_num(
            convergence.jackknife_stderr(convergence.without_each(median, stationarity))
        )
    return float(median(stationarity)), _quantile(len(stationarity)) * float(error)


def _cells(values: xr.DataArray, chosen: np.ndarray) -> np.ndarray:
    """(seed, cell, octave) of the chosen (n, triple)."""
    return values.transpose("seed", "n", "triple", "octave").values[:, chosen]


def _rate(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    allowed = convergence.sufficient_slope(dataset["octave"].values)
    far = (allowed + 0.5) / 2  # half of the slope's distance from T^(−1/2) to what is allowed
    found, medians = [], {}
    for family, what in (
        ("realizable", "on random realizable quadratics, D0 = 0"),
        ("counterexample", "on the counterexample, D0 = 0"),
        ("symmetric", "with symmetric noise, D0 > 0, which leaves no bias"),
    ):
        claim, cells = _rate_of_family(dataset, theorem, family, what, allowed)
        found.append(claim)
        medians[family] = _median(cells)
    value, error = medians["realizable"]
    found.append(
        assess_equal(
            "rate_sharp",
            "The left-hand side falls no faster than T^(−1/2) where D0 = 0, as x − x* stays of the "
            "size of a step (median slope; random realizable quadratics)",
            "scale invariance: (x − x*)/η is stationary",
            measured=value,
            value=-0.5,
            uncertainty=error,
            resolution=far,
            ours=True,
        )
    )
    found.append(_region(dataset, theorem))
    found.append(_symmetric_exponent(dataset, *medians["symmetric"], far))
    found.append(_violated_threshold(dataset))
    return found


def _rate_of_family(
    dataset: xr.Dataset, theorem: str, family: str, what: str, allowed: float
) -> tuple[Claim, Float[np.ndarray, "seed cell octave"]]:
    """The claim that the rate is kept, and the mean stationarity of the triples it covers."""
    conditions, of_family = _hypotheses(dataset, family), dataset.sel(family=family)
    arrived = (of_family["arrived"] > 0).transpose("n", "triple").values
    large = _large_enough(dataset).sel(family=family).transpose("n", "triple").values
    applies = conditions.hold & large & ~arrived
    cells = _cells(of_family["mean_stationarity"], applies)
    share, error = _share(lambda values: _slower(values, allowed), cells)
    lost = int((conditions.bounded_steps & arrived).sum())
    claim = assess(
        f"rate_{family}",
        f"The left-hand side falls at least as fast as log T/√T {what} (share of "
        f"{cells.shape[1]} triples whose slope of the mean over (T/2, T] exceeds {allowed:.3f}, "
        f"that of log T/√T, by the {1 - LEVEL:.1%} quantile of its error; triples have β1 < √β2, "
        f"x* attracting and T large enough; {lost} with a run exactly on x* are left out)",
        theorem if family != "symmetric" else "zeros of the stationary drift field",
        measured=share,
        uncertainty=error,
        at_most=LEVEL,
        ours=family == "symmetric",
    )
    return claim, cells


def _violated_threshold(dataset: xr.Dataset) -> Claim:
    counter = dataset.sel(family="counterexample")
    large = _large_enough(dataset).sel(family="counterexample")
    repels = (counter["drift"] > 4 * counter["drift_stderr"]) & large
    cells = _cells(counter["mean_stationarity"], repels.transpose("n", "triple").values)
    share, error = _share(_falls, cells)
    return assess(
        "violated_threshold",
        "The left-hand side does not fall where β2 is below the exact threshold (share of "
        f"{cells.shape[1]} triples on the counterexample whose slope is below 0 by the "
        f"{1 - LEVEL:.1%} quantile of its error)",
        "Divergence theorem",
        measured=share,
        uncertainty=error,
        at_most=LEVEL,
    )


def _region(dataset: xr.Dataset, theorem: str) -> Claim:
    """The rate in the theorem's own region, with the constant `REGION_C`."""
    allowed = convergence.sufficient_slope(dataset["region_octave"].values)
    dims = ("seed", "region_family", "n", "region_triple", "region_octave")
    stationarity = dataset["region_stationarity"].transpose(*dims)
    there = stationarity.notnull().all(("seed", "region_octave")).values
    share, error = _share(lambda values: _slower(values, allowed), stationarity.values[:, there])
    where = "; ".join(
        f"n = {int(n)}: 1 − β2 from {one.min():.2g} to {one.max():.2g}"
        for n, one in zip(dataset["n"].values, dataset["region_q"].values, strict=True)
        if np.isfinite(one).all()
    )
    return assess(
        "rate_region",
        "The left-hand side falls at least as fast as log T/√T in the theorem's own region, "
        f"β2 ≥ 1 − C(1−β1ⁿ)/n⁵ with C = {REGION_C:g} (share of {there.sum()} triples slower than "
        f"{allowed:.3f}; T is large enough for {where or 'none of the n'})",
        theorem,
        measured=share,
        uncertainty=error,
        at_most=LEVEL,
    )


def _symmetric_exponent(dataset: xr.Dataset, value: float, error: float, far: float) -> Claim:
    if dataset.attrs["theorem_sampling"] == "with_replacement":
        return assess_equal(
            "rate_exponent",
            "The left-hand side falls no faster than T^(−1/2) with symmetric noise, as |x − x*|² "
            "is of the size of a step (median slope)",
            "variance of the iterate",
            measured=value,
            value=-0.5,
            uncertainty=error,
            resolution=far,
            ours=True,
        )
    return assess(
        "rate_exponent",
        "The left-hand side falls faster than T^(−1/2) with symmetric noise: an epoch visits each "
        "component, so the variance at its start is of second order in the step size, T⁻¹, except "
        "for a small fraction that fluctuates with v, T^(−1/2) (median slope)",
        "variance of the iterate",
        measured=value,
        uncertainty=error,
        at_least=-1.0,  # the slopes of the two orders
        at_most=-0.5,
        ours=True,
    )


def _neighbourhood(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    sampling = dataset.attrs["theorem_sampling"]
    q, smallest_q = dataset["plateau_q"].values, float(dataset["small_q"].min())
    bias, bias_stderr = (
        dataset[name].sel(sampling=sampling).values for name in ("bias", "bias_stderr")
    )
    # ‖∇f‖² from one β2 to the next, towards 1
    gaps = np.diff(np.log(q))
    exponents = 2 * np.diff(np.log(bias)) / gaps
    error = 2 * np.hypot((bias_stderr / bias)[1:], (bias_stderr / bias)[:-1]) / np.abs(gaps)
    lowest = int(exponents.argmin())
    small = dataset["small_bias"]
    local = 2 * np.diff(np.log(small)) / np.diff(np.log(dataset["small_q"]))
    exponent = float(local[list(dataset["small_sampling"].values).index(sampling), 0])
    shuffled, drawn = (
        small.sel(small_sampling=scheme, small_q=smallest_q)
        for scheme in ("random_shuffling", "with_replacement")
    )
    return [
        assess(
            "neighbourhood_beta2",
            "The limit of ‖∇f‖²/√D0 falls at least like 1 − β2 with skewed noise (exponent, the "
            "smallest from one β2 to the next)",
            theorem,
            measured=float(exponents[lowest]),
            uncertainty=2 * float(error[lowest]),
            at_least=1.0,
        ),
        assess(
            "neighbourhood_exact",
            "The limit of ‖∇f‖²/√D0 falls like (1 − β2)² with skewed noise, so the theorem's "
            f"(1 − β2)√D0 is not tight here (exponent at 1 − β2 = {smallest_q:g}, where the next "
            "order is a small multiple of 1 − β2)",
            "zeros of the stationary drift field",
            measured=exponent,
            # the next order is a small multiple of 1 − β2; the factor is a convention
            at_least=2 - 10 * smallest_q,
            at_most=2 + 10 * smallest_q,
            ours=True,
        ),
        assess(
            "schemes",
            "Random shuffling halves the bias of sampling with replacement, to first order in "
            f"1 − β2 (ratio of ‖∇f‖ at 1 − β2 = {smallest_q:g})",
            "zeros of the stationary drift field",
            measured=float(shuffled / drawn),
            # the next order is a small multiple of 1 − β2; the factor is a convention
            at_least=0.5 - 5 * smallest_q,
            at_most=0.5 + 5 * smallest_q,
            ours=True,
        ),
        *_limit_points(dataset, bias),
    ]


def _limit_points(dataset: xr.Dataset, bias: np.ndarray) -> list[Claim]:
    """Judges whether simulations settle at the limit points, to within the error over seeds."""
    n = SKEWED_N  # one centre of n at 1, the minimiser at 1/n; the bias is towards 0
    # (seed, β2, window), as fractions of the bias
    settled = (1 / n - dataset["settled"].values - bias[:, None]) / bias[:, None]
    # the worst of several β2 is selected: Bonferroni
    mean, uncertainty = _miss(settled, LEVEL / settled.shape[1])
    worst = int(np.abs(mean / uncertainty).argmax())
    found = [
        assess_equal(
            "limit_point",
            "Simulations settle where the stationary drift vanishes as the step size tends to 0 "
            f"(distance from the limit point relative to the bias; of {settled.shape[1]} β2 the "
            "one farthest off relative to its error, which allows for the selection)",
            "zeros of the stationary drift field",
            measured=float(mean[worst]),
            value=0.0,
            uncertainty=float(uncertainty[worst]),
            resolution=_MISS,
            ours=True,
        )
    ]
    for name in dataset["many"].values:
        mean, uncertainty = _miss(dataset["many_miss"].sel(many=name).values, LEVEL)
        found.append(
            assess_equal(
                f"limit_point_{name}",
                f"Simulations of {name.replace('_', ' ')} in {MANY_DIMENSIONS[name]} dimensions "
                "settle where the stationary drift vanishes as the step size tends to 0 (distance "
                "from the limit point along the bias, relative to it)",
                "zeros of the stationary drift field",
                measured=float(mean),
                value=0.0,
                uncertainty=float(uncertainty),
                resolution=_MISS,
                ours=True,
            )
        )
    return found


def _miss(settled: Float[np.ndarray, "S ... 3"], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The distance of the extrapolated means over windows from a limit point, and its error.

    The error is the sum of that over seeds and the remainder of the extrapolation to η = 0.
    """
    limit = settled_limit(settled)
    chance = _quantile(len(settled), level) * _stderr(limit.value)
    error = chance + np.abs(limit.remainder.mean(axis=0))
    return np.asarray(limit.value.mean(axis=0)), np.asarray(error)


def _stderr(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def _dimensions(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    ends = dataset["dimensions_octave"].values
    allowed = convergence.sufficient_slope(ends)
    large = dataset["dimensions_q"] * ends[0] / 2 >= MEMORIES
    stationarity = dataset["dimensions_stationarity"].isel(
        dimensions_q=np.flatnonzero(large.values)
    )
    stationarity = stationarity.stack(cell=("member", "dimensions_beta1", "dimensions_q"))
    cells = stationarity.transpose("seed", "cell", "dimensions_octave").values
    share, error = _share(lambda values: _slower(values, allowed), cells)
    gradients = dataset["many_gradient"]
    exponents = 2 * np.log(gradients.isel(many_q=0) / gradients.isel(many_q=1))
    exponents = (exponents / np.log(float(dataset["many_q"][0] / dataset["many_q"][1]))).values
    lowest = exponents[exponents.mean(axis=1).argmin()]  # those of the members of one family
    return [
        assess(
            "rate_dimensions",
            "The left-hand side falls at least as fast as log T/√T on random realizable quadratics "
            f"in {DIMENSIONS['realizable_quadratics']} dimensions (share of {cells.shape[1]} (β1, "
            f"β2, member) slower than {allowed:.3f})",
            theorem,
            measured=share,
            uncertainty=error,
            at_most=LEVEL,
        ),
        assess(
            "neighbourhood_dimensions",
            "The neighbourhood shrinks at least like 1 − β2 on random quadratics in "
            f"{MANY_DIMENSIONS['nonrealizable_quadratics']} and logistic regressions in "
            f"{MANY_DIMENSIONS['logistic']} dimensions (exponent of ‖∇f‖² at the limit point; mean "
            f"over {exponents.shape[1]} members, of the family where it is smallest)",
            theorem,
            measured=float(lowest.mean()),
            uncertainty=_quantile(len(lowest)) * float(_stderr(lowest)),
            at_least=1.0,
        ),
    ]


def window_ends(
    lhs: Float[np.ndarray, "n q step"], q: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, "n step"], Float[np.ndarray, "n step"]]:
    """Smallest and largest 1 − β2 whose left-hand side is within a factor of 1.5 of its minimum.

    The logarithm of the left-hand side is interpolated linearly between grid points. An end that
    lies outside the grid is replaced by that of the grid, and by NaN where no β2 has a finite
    left-hand side.
    """
    minimum = lhs.min(axis=1, keepdims=True)
    lhs = np.where(np.isfinite(minimum), lhs, np.nan)
    excess = np.log(lhs) - np.log(minimum) - np.log(_FIT)
    log_q = np.log(q)

    def end(order: slice) -> np.ndarray:
        one, x = excess[:, order], log_q[order]
        first = (one <= 0).argmax(axis=1)
        before = np.maximum(first - 1, 0)
        high, low = (np.take_along_axis(one, i[:, None], axis=1)[:, 0] for i in (before, first))
        share = np.where(first > 0, high / np.where(high > low, high - low, 1.0), 1.0)
        found = np.exp(x[before] + share * (x[first] - x[before]))
        return np.where(np.isnan(one).all(axis=1), np.nan, found)

    return end(slice(None)), end(slice(None, None, -1))


def _window(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    steps, q = dataset["window_step"].values, dataset["window_q"].values
    late = steps >= steps[-1] / 100
    x = np.log(steps[late]) - np.log(steps[late]).mean()

    def statistics(stationarity: np.ndarray) -> np.ndarray:
        """Share of interior windows, exponents of the slow and the biased end; means over n."""
        low, high = window_ends(convergence.left_hand_side(stationarity)[0][..., late], q)
        inside = np.where(np.isnan(low), np.nan, (low > q[0]) & (high < q[-1]))
        fits = [((np.log(one) * x).sum(axis=-1) / (x @ x)).mean() for one in (low, high)]
        return np.array([inside.mean(), *fits])

    stationarity = dataset["window_stationarity"].values.astype(np.float64)
    stderr = convergence.jackknife_stderr(convergence.without_each(statistics, stationarity))
    inside, slow, biased = zip(
        statistics(stationarity), _quantile(len(stationarity)) * stderr, strict=True
    )
    return [
        assess(
            "window",
            "At finite T the best β2 is interior: too small a β2 is biased, too large a β2 slow "
            "(share of (n, T) for which the left-hand side at both extreme β2 exceeds "
            f"{_FIT:g} times its minimum)",
            f"{theorem}: log T/((1−β2)√T) + (1−β2)√D0",
            measured=inside[0],
            uncertainty=inside[1],
            at_least=1.0,
        ),
        assess(
            "window_slow_end",
            "The largest good β2 tends to 1 as T grows (exponent of 1 − β2 in T)",
            f"{theorem}: log T/((1−β2)√T)",
            measured=slow[0],
            uncertainty=slow[1],
            at_most=0.0,
        ),
        assess(
            "window_biased_end",
            "The smallest good β2 tends to 1 as T grows (exponent of 1 − β2 in T)",
            f"{theorem}: (1−β2)√D0",
            measured=biased[0],
            uncertainty=biased[1],
            at_most=0.0,
        ),
    ]


def _conditions(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    ratio, allowed = (
        dataset["line_ratio"].values,
        convergence.sufficient_slope(dataset["octave"].values),
    )
    beyond = (
        dataset["line_stationarity"].transpose("seed", "line_beta1", "octave").values[:, ratio > 1]
    )
    rate = convergence.rate(beyond)
    highest = rate.slope + rate.stderr
    worst = int(highest.argmax())
    return [
        assess(
            "beta1_line",
            "β1 < √β2 is sufficient but not necessary: just beyond it Adam converges on the "
            "counterexample as fast as log T/√T (slope of the mean over (T/2, T], the largest over "
            f"β1/√β2 up to {ratio.max():.2f})",
            theorem,
            measured=float(rate.slope[worst]),
            uncertainty=_quantile(len(beyond), LEVEL / len(rate.slope)) * float(rate.stderr[worst]),
            at_most=allowed,
            ours=True,
        )
    ]


def _reddi(dataset: xr.Dataset) -> list[Claim]:
    last = dataset["reddi"].isel(reddi_step=-1).values
    return [
        assess(
            "reddi_stuck",
            "On the example of Reddi et al. Adam goes to +1, the worst point, in cyclic order, in "
            "random order and with diminishing steps (smallest x at the end; 1 − β2 is "
            f"{BEYOND} times that of the exact boundary)",
            "Figure 2",
            measured=float(last[:, 0].min()),
            at_least=_AT_WALL,
        ),
        assess(
            "reddi_cured",
            "On the example of Reddi et al. Adam goes to the minimiser −1 once β2 is past the "
            f"exact boundary (largest x at the end; 1 − β2 is 1/{BEYOND} of that of the boundary)",
            "stationary drift",
            measured=float(last[:, 1].max()),
            at_most=-_AT_WALL,
            ours=True,
        ),
    ]
