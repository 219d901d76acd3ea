"""The claims of `experiments.theorem_3_1` and `theorem_3_3`, from their data set."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition import bounds, scaling
from adam_transition.claims import Claim, assess
from adam_transition.problems import ProblemClass

_NAMES = {"with_replacement": "Theorem 3.1", "random_shuffling": "Theorem 3.3"}


def claims(dataset: xr.Dataset) -> list[Claim]:
    """What the theorem says, what it leaves out, and what happens where it does not apply."""
    theorem = _NAMES[dataset.attrs["theorem_scheme"]]
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

    `largest_c` is the greatest C with β2 = 1 − C(1−β1^n)/n^5 among the triples at which x* attracts
    on the counterexample: on this problem the theorem's constant could be at least that.
    """
    found = []
    attracts = _attracts(dataset).sel(family="counterexample")
    for n in dataset["n"].values.tolist():
        one, problem_class = dataset.sel(n=n), ProblemClass(n, 1, 0, 2 * n**2)
        checked = [
            bounds.hypotheses(problem_class, beta1, 1 - q, schedule="inverse_sqrt")
            for beta1, q in zip(one["beta1"].values, one["one_minus_beta2"].values, strict=True)
        ]
        holds = np.array([all(h.holds is not False for h in each) for each in checked])
        constants = np.array([next(h.margin for h in each if h.holds is None) for each in checked])
        here = holds & attracts.sel(n=n).values
        found.append(
            {
                "n": n,
                "triples": len(checked),
                "hypotheses_hold": int(holds.sum()),
                "attracting": int(here.sum()),
                "largest_c": float(constants[here].max()) if here.any() else None,
            }
        )
    return found


def _bounded_steps(dataset: xr.Dataset) -> xr.DataArray:
    beta1, q = dataset["beta1"], dataset["one_minus_beta2"]
    return beta1.copy(data=bounds.bounded_steps(beta1.values, q.values))


def _attracts(dataset: xr.Dataset) -> xr.DataArray:
    """Where x* attracts beyond doubt: our stand-in for β2 ≥ γ1(n), exact where D0 = 0."""
    sure = dataset["drift"] < -4 * dataset["drift_stderr"]
    return sure | dataset["drift"].isnull()


def _hypotheses(dataset: xr.Dataset) -> xr.DataArray:
    return _bounded_steps(dataset) & _attracts(dataset)


def _rate(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    allowed = bounds.sufficient_slope(dataset["step"].values)
    applies = _hypotheses(dataset)
    found = []
    for family, what in (
        ("realizable", "random realizable quadratics, D0 = 0"),
        ("counterexample", "the counterexample, D0 = 0"),
    ):
        one = dataset.sel(family=family)
        slope = one["slope"].values[applies.sel(family=family).values]
        stderr = one["slope_stderr"].values[applies.sel(family=family).values]
        with np.errstate(invalid="ignore"):
            slower = slope - 2 * stderr > allowed
        found.append(
            assess(
                f"rate_{family}",
                f"The left-hand side falls at least as fast as log T/√T: {what} (share of "
                f"{len(slope)} triples under the hypotheses with a slope above {allowed:.3f} by "
                "two standard errors)",
                theorem,
                measured=float(slower.mean()) if len(slope) else np.nan,
                at_most=0.05,
            )
        )
    symmetric, counted = dataset.sel(family="symmetric"), _bounded_steps(dataset).values
    # triples share their seeds, so the error of the median is a jackknife over seeds as well
    medians = np.median(symmetric["slope_without"].values[:, counted], axis=1)
    median = float(np.median(symmetric["slope"].values[counted]))
    error = float(2 * bounds.jackknife_stderr(medians))
    found.append(
        assess(
            "rate_symmetric",
            "… also where D0 > 0 and noise is symmetric (median slope of all triples with "
            f"β1 < √β2; {allowed:.3f} is that of log T/√T)",
            theorem,
            measured=median,
            uncertainty=error,
            at_most=allowed,
        )
    )
    drawn = dataset.attrs["theorem_scheme"] == "with_replacement"
    found.append(
        assess(
            "rate_exponent",
            "… and no faster with symmetric noise: T^(−1/2) (median slope)"
            if drawn
            else "… and faster with symmetric noise: an epoch sees each component, so the variance "
            "at its start is of second order in the step size (median slope)",
            "variance of the iterate",
            measured=median,
            uncertainty=error,
            at_least=-0.6 if drawn else -1.1,
            at_most=-0.45 if drawn else -0.6,
            beyond_the_paper=True,
        )
    )
    counter = dataset.sel(family="counterexample")
    repels = (counter["drift"] > 4 * counter["drift_stderr"]).values
    ratio = (counter["lhs"].isel(step=-1) / counter["lhs"].isel(step=0)).values[repels]
    found.append(
        assess(
            "violated_threshold",
            "Where β2 is below the exact threshold the left-hand side does not fall (share of "
            f"{repels.sum()} triples on the counterexample that halve it)",
            "Divergence theorem",
            measured=float((ratio < 0.5).mean()) if len(ratio) else np.nan,
            at_most=0.01,
        )
    )
    return found


def _neighbourhood(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    scheme = dataset.attrs["theorem_scheme"]
    q = dataset["plateau_q"].values
    bias = dataset["bias"].sel(noise="skewed")
    small = q <= 0.2
    law = scaling.fit_power_law(q[small], bias.sel(scheme=scheme).values[small] ** 2)
    d0 = scaling.fit_power_law(
        np.sqrt(dataset["scaled_d0"].values),
        dataset["scaled_bias"].values ** 2 / np.sqrt(dataset["scaled_d0"].values),
    )
    symmetric = dataset.sel(noise="symmetric", scheme=scheme)
    exact = bias.sel(scheme=scheme)
    misses = abs(dataset["settled_bias"] - exact)
    noise = np.hypot(
        dataset["settled_stderr"], dataset["bias_stderr"].sel(noise="skewed", scheme=scheme)
    )
    worst = int((misses / exact).values.argmax())
    found = [
        assess(
            "neighbourhood_beta2",
            "‖∇f‖²/√D0 in the limit falls at least like 1 − β2 (exponent, skewed noise)",
            theorem,
            measured=law.exponent,
            uncertainty=2 * law.stderr,
            at_least=1.0,
        ),
        assess(
            "neighbourhood_exact",
            "… namely like (1 − β2)²: the theorem's (1 − β2)√D0 is not tight here",
            "zeros of the stationary drift field",
            measured=law.exponent,
            uncertainty=2 * law.stderr,
            at_least=1.8,
            at_most=2.4,
            beyond_the_paper=True,
        ),
        assess(
            "neighbourhood_d0",
            "… and is proportional to √D0 (exponent)",
            theorem,
            measured=d0.exponent,
            uncertainty=2 * d0.stderr,
            at_least=0.99,
            at_most=1.01,
        ),
        assess(
            "neighbourhood_symmetric",
            "Symmetric noise leaves no bias at all (largest |∇f| at the limit point)",
            "zeros of the stationary drift field",
            measured=float(symmetric["bias"].max()),
            uncertainty=float(4 * symmetric["bias_stderr"].max()),
            at_most=1e-9,
            beyond_the_paper=True,
        ),
        assess(
            "limit_point",
            "Simulations settle where the stationary drift vanishes (largest miss, as a part of "
            "the bias)",
            "zeros of the stationary drift field",
            measured=float((misses / exact)[worst]),
            uncertainty=float(2 * (noise / exact)[worst]),
            at_most=0.1,
            beyond_the_paper=True,
        ),
    ]
    for name in dataset["many"].values:
        one = dataset.sel(many=name)
        found.append(
            assess(
                f"limit_point_{name}",
                f"… also in many dimensions: {name} (miss as a part of the bias)",
                "zeros of the stationary drift field",
                measured=float(one["many_error"]),
                uncertainty=2 * float(one["many_error_stderr"]),
                at_most=0.1,
                beyond_the_paper=True,
            )
        )
    shuffled, drawn = (bias.sel(scheme=s) for s in ("random_shuffling", "with_replacement"))
    found.append(
        assess(
            "schemes",
            "Random shuffling has a smaller neighbourhood than sampling with replacement (largest "
            "ratio of ‖∇f‖ over β2)",
            "zeros of the stationary drift field",
            measured=float((shuffled / drawn).max()),
            at_most=1.0,
            beyond_the_paper=True,
        )
    )
    return found


def _dimensions(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    allowed = bounds.sufficient_slope(dataset["step"].values)
    realizable = dataset.sel(dimensions="realizable_quadratics")
    with np.errstate(invalid="ignore"):
        slower = realizable["dimensions_slope"] - 2 * realizable["dimensions_stderr"] > allowed
    noisy = dataset["dimensions_lhs"].drop_sel(dimensions="realizable_quadratics")
    ratio = noisy.isel(dimensions_q=-1) / noisy.isel(dimensions_q=0)
    return [
        assess(
            "rate_dimensions",
            "The rate also in 50 dimensions: random realizable quadratics (share of 24 (β1, β2) "
            f"with a slope above {allowed:.3f} by two standard errors)",
            theorem,
            measured=float(slower.mean()),
            at_most=0.05,
        ),
        assess(
            "neighbourhood_dimensions",
            "The neighbourhood shrinks with 1 − β2 on random quadratics, logistic and nonconvex "
            "regressions in 10 dimensions (left-hand side at 1 − β2 = 0.001 over that at 0.3, the "
            "largest)",
            theorem,
            measured=float(ratio.max()),
            at_most=1.0,
        ),
    ]


def window_ends(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest 1 − β2 whose left-hand side is within 1.5 of the least, by (n, T)."""
    lhs, q = dataset["window"].values, dataset["window_q"].values
    good = lhs <= 1.5 * lhs.min(axis=1, keepdims=True)
    return q[good.argmax(axis=1)], q[::-1][good[:, ::-1].argmax(axis=1)]


def _window(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    steps = dataset["window_step"].values
    q = dataset["window_q"].values
    late = steps >= steps[-1] / 100
    low, high = (ends[:, late] for ends in window_ends(dataset))
    interior = (low > q[0]) & (high < q[-1])
    slow = scaling.fit_power_law(np.tile(steps[late], len(low)), low.ravel())
    biased = scaling.fit_power_law(np.tile(steps[late], len(high)), high.ravel())
    return [
        assess(
            "window",
            "At finite T the best β2 lies inside: too small a β2 is biased, too large a one slow "
            "(share of (n, T) where both ends of the range of β2 are half as bad again)",
            f"{theorem}: log T/((1−β2)√T) + (1−β2)√D0",
            measured=float(interior.mean()),
            at_least=1.0,
        ),
        assess(
            "window_slow_end",
            "The largest good β2 tends to 1 as T grows (exponent of 1 − β2 in T)",
            f"{theorem}: log T/((1−β2)√T)",
            measured=slow.exponent,
            uncertainty=2 * slow.stderr,
            at_most=0.0,
        ),
        assess(
            "window_biased_end",
            "… and so does the smallest good one (exponent of 1 − β2 in T)",
            f"{theorem}: (1−β2)√D0",
            measured=biased.exponent,
            uncertainty=2 * biased.stderr,
            at_most=0.0,
        ),
    ]


def _conditions(dataset: xr.Dataset, theorem: str) -> list[Claim]:
    n = dataset["threshold_n"].values
    found = []
    for values, name in zip(dataset["threshold"].values, ("1/(n−1)²", "1"), strict=True):
        law = scaling.fit_power_law(n, values)
        found.append(
            assess(
                f"threshold_a_{name}",
                f"The threshold 1 − β2* of the counterexample with a = {name} falls no faster than "
                "the sufficient n⁻⁵ (exponent, β1 = 0)",
                f"{theorem}: γ1(n) = 1 − O((1−β1ⁿ)/n⁵)",
                measured=law.exponent,
                uncertainty=2 * law.stderr,
                at_least=-5.0,
            )
        )
    ratio = dataset["line_ratio"].values
    last = dataset["line"].isel(line_step=-1).values
    first = dataset["line"].isel(line_step=0).values
    found.append(
        assess(
            "beta1_line",
            "β1 < √β2 is sufficient, not necessary: just beyond it Adam still converges on the "
            "counterexample (largest LHS at T over LHS at the first record, β1/√β2 up to "
            f"{ratio.max():.2f})",
            theorem,
            measured=float((last / first)[ratio >= 1].max()),
            at_most=0.1,
            beyond_the_paper=True,
        )
    )
    return found


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
            beyond_the_paper=True,
        ),
    ]
