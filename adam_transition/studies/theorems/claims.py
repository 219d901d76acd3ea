"""The claims of `experiments.theorem_3_1` and `theorem_3_3`, from their data set.

A rate is judged triple by triple: a slope is too slow if it is above what the theorem allows by
Student's quantile of its standard error, which happens by chance with probability `LEVEL`. So of
many triples at which the theorem holds, at most that share is called too slow. The error of the
share is a jackknife over index streams, as all triples run on the same ones.

The theorems speak of T large enough. How large is read off before any run: the first window of T,
which ends at T/16, must hold `MEMORIES` times 1/(1 − β2) steps, and the exact drift must have
carried the iterate over twice the distance to x* when it begins.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # loads its modules when they are used
import xarray as xr
from jaxtyping import Float

from adam_transition.studies.theorems.conditions import DIMENSIONS
from adam_transition.studies.theorems.data import MEMORIES
from adam_transition.studies.theorems.families import START
from adam_transition.studies.theorems.neighbourhood import SKEWED_N, settled_limit
from adam_transition.sweeps.claims import Claim, assess, assess_equal
from adam_transition.theory import convergence

LEVEL = 0.025
"""The share of true slopes that chance calls too slow."""
_ROUNDING = 1e-5  # of a slope: means are taken in float32
_FIT = 1.5  # a β2 is in the window if the left-hand side is at most this many times the least

_NAMES = {"with_replacement": "Theorem 3.1", "random_shuffling": "Theorem 3.3"}


def claims(dataset: xr.Dataset) -> list[Claim]:
    """What the theorem says, what it leaves out, and what happens where it does not apply."""
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
    """For each n: how many triples meet the hypotheses, and what their unknown constant allows.

    `largest_c` is the largest C with β2 = 1 − C(1−β1^n)/n^5 among the triples at which x* attracts
    on the counterexample: on this problem the theorem's constant could be at least that.
    `region_one_minus_beta2` is where the theorem's own region with C = 1 was run; None where it is
    empty, as T would have to be larger.
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
    """Of every (n, triple) on a family of problems."""
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
    """Whether T is, for each triple; where the drift is not known by its memory alone."""
    begin = float(dataset["octave"][0]) / 2
    remembers = dataset["one_minus_beta2"] * begin >= MEMORIES
    carried = abs(dataset["drift"]) / dataset["n"] * 2 * dataset.attrs["step_size"] * begin**0.5
    return remembers & ((carried >= 2 * START) | dataset["drift"].isnull())


def _quantile(num_seeds: int, level: float = LEVEL) -> float:
    return float(scipy.stats.t.ppf(1 - level, num_seeds - 1))


def _share(
    flags: Callable[[np.ndarray], np.ndarray], stationarity: np.ndarray
) -> tuple[float, float]:
    """The share of cells (seed, cell, octave) that a test flags, and twice its standard error."""
    if stationarity.shape[1] == 0:
        return np.nan, np.nan

    def share(values: np.ndarray) -> np.ndarray:
        return np.asarray(flags(values).mean())

    error = convergence.jackknife_stderr(convergence.without_each(share, stationarity))
    return float(share(stationarity)), 2 * float(error)


def _slower(stationarity: np.ndarray, than: float) -> np.ndarray:
    found = convergence.rate(stationarity)
    return found.slope - _quantile(len(stationarity)) * found.stderr > than


def _falls(stationarity: np.ndarray) -> np.ndarray:
    found = convergence.rate(stationarity)
    return found.slope + _quantile(len(stationarity)) * found.stderr < -_ROUNDING


def _median(stationarity: np.ndarray) -> tuple[float, float]:
    """The median slope and twice its standard error."""
    if stationarity.shape[1] == 0:
        return np.nan, np.nan

    def median(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(convergence.slope(values)))

    with np.errstate(invalid="ignore"):  # an infinite median has no error
        error = np.nan_to_num(
            convergence.jackknife_stderr(convergence.without_each(median, stationarity))
        )
    return float(median(stationarity)), 2 * float(error)


def _cells(values: xr.DataArray, chosen: np.ndarray) -> np.ndarray:
    """(seed, cell, octave) of the chosen (n, triple)."""
    return values.transpose("seed", "n", "triple", "octave").values[:, chosen]


def _rate(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    allowed = convergence.sufficient_slope(dataset["octave"].values)
    far = (allowed + 0.5) / 2  # half of the way from T^(−1/2) to what is allowed
    found, medians = [], {}
    for family, what in (
        ("realizable", "random realizable quadratics, D0 = 0"),
        ("counterexample", "the counterexample, D0 = 0"),
        ("symmetric", "symmetric noise, D0 > 0, which leaves no bias"),
    ):
        claim, cells = _rate_of_family(dataset, theorem, family, what, allowed)
        found.append(claim)
        medians[family] = _median(cells)
    value, error = medians["realizable"]
    found.append(
        assess_equal(
            "rate_sharp",
            "… and no faster where D0 = 0: x − x* stays of the size of a step, T^(−1/2) (median "
            "slope, random realizable quadratics)",
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
    """The claim that the rate is kept, and the mean stationarity of the triples that it is about."""
    conditions, of_family = _hypotheses(dataset, family), dataset.sel(family=family)
    arrived = (of_family["arrived"] > 0).transpose("n", "triple").values
    large = _large_enough(dataset).sel(family=family).transpose("n", "triple").values
    applies = conditions.hold & large & ~arrived
    cells = _cells(of_family["mean_stationarity"], applies)
    share, error = _share(lambda values: _slower(values, allowed), cells)
    lost = int((conditions.bounded_steps & arrived).sum())
    claim = assess(
        f"rate_{family}",
        f"The left-hand side falls at least as fast as log T/√T: {what} (share of triples with a "
        f"slope of the mean over (T/2, T] above {allowed:.3f}, that of log T/√T, by the "
        f"{1 - LEVEL:.1%} quantile of its error; {cells.shape[1]} triples with β1 < √β2, x* "
        f"attracting and T large enough; {lost} with a run on x* itself are left out)",
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
        "Where β2 is below the exact threshold the left-hand side does not fall (share of "
        f"{cells.shape[1]} triples on the counterexample with a slope below 0 by the "
        f"{1 - LEVEL:.1%} quantile of its error)",
        "Divergence theorem",
        measured=share,
        uncertainty=error,
        at_most=LEVEL,
    )


def _region(dataset: xr.Dataset, theorem: str) -> Claim:
    """The rate in the region that the theorem names, with the constant 1."""
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
        "… and in the theorem's own region, β2 ≥ 1 − C(1−β1ⁿ)/n⁵ with C = 1 (share of "
        f"{there.sum()} triples slower than {allowed:.3f}; where T is large enough for it: "
        f"{where or 'for none of the n'})",
        theorem,
        measured=share,
        uncertainty=error,
        at_most=LEVEL,
    )


def _symmetric_exponent(dataset: xr.Dataset, value: float, error: float, far: float) -> Claim:
    if dataset.attrs["theorem_sampling"] == "with_replacement":
        return assess_equal(
            "rate_exponent",
            "… and no faster with symmetric noise: |x − x*|² is of the size of a step, T^(−1/2) "
            "(median slope)",
            "variance of the iterate",
            measured=value,
            value=-0.5,
            uncertainty=error,
            resolution=far,
            ours=True,
        )
    return assess(
        "rate_exponent",
        "… and faster with symmetric noise: an epoch sees each component, so that what is left of "
        "the variance at its start, T⁻¹, is of second order in the step size, but for a small part "
        "that fluctuates with v, T^(−1/2) (median slope)",
        "variance of the iterate",
        measured=value,
        uncertainty=error,
        at_least=-1.0,
        at_most=-0.5,
        ours=True,
    )


def _neighbourhood(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    sampling = dataset.attrs["theorem_sampling"]
    q, least_q = dataset["plateau_q"].values, float(dataset["small_q"].min())
    bias, bias_stderr = (
        dataset[name].sel(sampling=sampling).values for name in ("bias", "bias_stderr")
    )
    # ‖∇f‖² from one β2 to the next, towards 1
    gaps = np.diff(np.log(q))
    exponents = 2 * np.diff(np.log(bias)) / gaps
    error = 2 * np.hypot((bias_stderr / bias)[1:], (bias_stderr / bias)[:-1]) / np.abs(gaps)
    least = int(exponents.argmin())
    small = dataset["small_bias"]
    local = 2 * np.diff(np.log(small)) / np.diff(np.log(dataset["small_q"]))
    exponent = float(local[list(dataset["small_sampling"].values).index(sampling), 0])
    shuffled, drawn = (
        small.sel(small_sampling=one, small_q=least_q)
        for one in ("random_shuffling", "with_replacement")
    )
    return [
        assess(
            "neighbourhood_beta2",
            "‖∇f‖²/√D0 in the limit falls at least like 1 − β2 (exponent from one β2 to the next, "
            "the least; skewed noise)",
            theorem,
            measured=float(exponents[least]),
            uncertainty=2 * float(error[least]),
            at_least=1.0,
        ),
        assess(
            "neighbourhood_exact",
            "… namely like (1 − β2)²: the theorem's (1 − β2)√D0 is not tight here (exponent at "
            f"1 − β2 = {least_q:g}, at which the next order is some times 1 − β2)",
            "zeros of the stationary drift field",
            measured=exponent,
            at_least=2 - 10 * least_q,
            at_most=2 + 10 * least_q,
            ours=True,
        ),
        assess(
            "schemes",
            "Random shuffling leaves half of the bias of sampling with replacement, to first order "
            f"in 1 − β2 (ratio of ‖∇f‖ at 1 − β2 = {least_q:g})",
            "zeros of the stationary drift field",
            measured=float(shuffled / drawn),
            at_least=0.5 - 5 * least_q,
            at_most=0.5 + 5 * least_q,
            ours=True,
        ),
        *_limit_points(dataset, bias),
    ]


def _limit_points(dataset: xr.Dataset, bias: np.ndarray) -> list[Claim]:
    """Whether simulations settle at the limit points, as far as their seeds can tell."""
    n = SKEWED_N  # one centre of n at 1, the minimiser at 1/n; the bias is towards 0
    # (seed, β2, window), parts of the bias
    settled = (1 / n - dataset["settled"].values - bias[:, None]) / bias[:, None]
    # one of several β2: Bonferroni
    mean, uncertainty = _miss(settled, LEVEL / settled.shape[1])
    worst = int(np.abs(mean / uncertainty).argmax())
    found = [
        assess_equal(
            "limit_point",
            "Simulations settle where the stationary drift vanishes, as the steps become small "
            f"(miss as a part of the bias; the one of {settled.shape[1]} β2 that is farthest off "
            "for its error, which allows for the choice)",
            "zeros of the stationary drift field",
            measured=float(mean[worst]),
            value=0.0,
            uncertainty=float(uncertainty[worst]),
            resolution=0.1,
            ours=True,
        )
    ]
    for name in dataset["many"].values:
        mean, uncertainty = _miss(dataset["many_miss"].sel(many=name).values, LEVEL)
        found.append(
            assess_equal(
                f"limit_point_{name}",
                f"… also in many dimensions: {name} (miss along the bias, as a part of it)",
                "zeros of the stationary drift field",
                measured=float(mean),
                value=0.0,
                uncertainty=float(uncertainty),
                resolution=0.1,
                ours=True,
            )
        )
    return found


def _miss(settled: Float[np.ndarray, "S ... 3"], level: float) -> tuple[np.ndarray, np.ndarray]:
    """What the means over windows miss a limit point by as η → 0, and the error of that.

    The error is that of the seeds and what the extrapolation may have left.
    """
    limit = settled_limit(settled)
    chance = _quantile(len(settled), level) * _stderr(limit.value)
    return limit.value.mean(axis=0), chance + np.abs(limit.remainder.mean(axis=0))


def _stderr(values: np.ndarray) -> np.ndarray:
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


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
    lowest = exponents[exponents.mean(axis=1).argmin()]  # of the members of a family
    return [
        assess(
            "rate_dimensions",
            f"The rate also in {DIMENSIONS['realizable_quadratics']} dimensions: random realizable "
            "quadratics (share of "
            f"{cells.shape[1]} (β1, β2, member) slower than {allowed:.3f})",
            theorem,
            measured=share,
            uncertainty=error,
            at_most=LEVEL,
        ),
        assess(
            "neighbourhood_dimensions",
            "The neighbourhood shrinks at least like 1 − β2 on random quadratics in 10 and "
            "logistic regressions in 5 dimensions (exponent of ‖∇f‖² at the limit point; mean over "
            f"{exponents.shape[1]} members of the family where it is least)",
            theorem,
            measured=float(lowest.mean()),
            uncertainty=_quantile(len(lowest)) * float(_stderr(lowest)),
            at_least=1.0,
        ),
    ]


def window_ends(
    lhs: Float[np.ndarray, "n q step"], q: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, "n step"], Float[np.ndarray, "n step"]]:
    """Least and greatest 1 − β2 whose left-hand side is within 1.5 of the least.

    Ends lie between grid points, where the logarithm, linear between them, crosses the level. An
    end that is not inside is that of the grid; NaN where no β2 has a finite left-hand side.
    """
    least = lhs.min(axis=1, keepdims=True)
    lhs = np.where(np.isfinite(least), lhs, np.nan)
    excess = np.log(lhs) - np.log(least) - np.log(_FIT)
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
        """Share inside, exponents of the slow and of the biased end; means over n."""
        low, high = window_ends(convergence.left_hand_side(stationarity)[0][..., late], q)
        inside = np.where(np.isnan(low), np.nan, (low > q[0]) & (high < q[-1]))
        fits = [((np.log(one) * x).sum(axis=-1) / (x @ x)).mean() for one in (low, high)]
        return np.array([inside.mean(), *fits])

    stationarity = dataset["window_stationarity"].values.astype(np.float64)
    stderr = convergence.jackknife_stderr(convergence.without_each(statistics, stationarity))
    inside, slow, biased = zip(statistics(stationarity), 2 * stderr, strict=True)
    return [
        assess(
            "window",
            "At finite T the best β2 lies inside: too small a β2 is biased, too large a one slow "
            "(share of (n, T) where both ends of the range of β2 are half as bad again)",
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
            "… and so does the smallest good one (exponent of 1 − β2 in T)",
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
    highest = rate.slope + rate.stderr  # the worst, its error counted
    worst = int(highest.argmax())
    return [
        assess(
            "beta1_line",
            "β1 < √β2 is sufficient, not necessary: just beyond it Adam converges on the "
            "counterexample, and as fast as log T/√T (slope of the mean over (T/2, T], the largest "
            f"over β1/√β2 up to {ratio.max():.2f})",
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
            "On Reddi's example Adam goes to +1, the worst point, in cyclic and in random order "
            "and with diminishing steps (least x at the end, 1 − β2 three times the boundary's)",
            "Figure 2",
            measured=float(last[:, 0].min()),
            at_least=0.9,
        ),
        assess(
            "reddi_cured",
            "… and to the minimiser −1 once β2 is past the exact boundary (largest x at the end, "
            "1 − β2 a third of the boundary's)",
            "stationary drift",
            measured=float(last[:, 1].max()),
            at_most=-0.9,
            ours=True,
        ),
    ]
