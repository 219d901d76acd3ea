"""The claims of `experiments.divergence`, from its data set."""

import numpy as np
import xarray as xr

from adam_transition import adam, scaling
from adam_transition.claims import Claim, assess

_THEOREM = "Divergence theorem"
_PERMUTATIONS = ("cyclic", "shuffle_once", "random_shuffling")


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Everything that the divergence theorem says, and what we add to it, with verdicts."""
    return [
        *_regions(dataset),
        *_areas(dataset),
        *_trajectories(dataset),
        *_sign_sgd(dataset),
        *_d1(dataset),
        *_patterns(dataset),
    ]


def _regions(dataset: xr.Dataset) -> list[Claim]:
    proven = dataset["worst_case"] > 0
    found = []
    schemes = [scheme for scheme in dataset["sampling"].values if scheme in _PERMUTATIONS]
    if schemes:
        drift = dataset["drift"].sel(sampling=schemes)
        # the random ones may fall short by what their noise explains
        least = drift + 4 * dataset["drift_stderr"].sel(sampling=schemes)
        found.append(
            assess(
                "proven_region_inside",
                "The region in which Adam is proven to diverge for every sequence of epoch "
                f"permutations lies inside the exact ones (cells outside; {', '.join(schemes)})",
                _THEOREM,
                measured=float((proven & (least <= 0)).sum()),
                at_most=0,
            )
        )
    largest = dataset["area"].sel(member=dataset["member"].values[0])
    shares = (largest[0] / largest[1]).where(dataset["area_n"] >= 20, drop=True)
    if shares.size:
        found.append(
            assess(
                "proven_share",
                "The proven region is most of the exact cyclic one (share of its area, the least "
                "over n ≥ 20, a = 1/(n−1)²)",
                "worst-case bound",
                measured=float(shares.min()),
                at_least=0.5,
                beyond_the_paper=True,
            )
        )
    return found


def _areas(dataset: xr.Dataset) -> list[Claim]:
    n = dataset["area_n"].values
    whole = dataset["area"].isel(region=0, member=1).values
    large = n >= min(100, n[-3])
    law = scaling.fit_power_law(n[large], 1 - whole[large])
    return [
        assess(
            "region_grows",
            "The region of divergence grows with n (least increase of the proven area from one n "
            "to the next, D1 = 2n²)",
            _THEOREM,
            measured=float(np.diff(whole).min()),
            at_least=0.0,
        ),
        assess(
            "region_fills",
            "… and fills [0, 1)² (exponent in n of what the proven region leaves at D1 = 2n²; it "
            f"leaves {1 - whole[-1]:.3f} at n = {n[-1]})",
            _THEOREM,
            measured=law.exponent,
            uncertainty=2 * law.stderr,
            at_most=0.0,
        ),
        assess(
            "paper_member_fills",
            "The region of the paper's own a = 1/(n−1)² fills [0, 1)² too, so it reaches above "
            f"β1 = β2^¼ (share of that part that diverges at n = {n[-1]}, cyclic; our asymptotics "
            "have it converge: area → 4/5)",
            "Section 3: the choice of a",
            measured=float(dataset["area_above"].values[-1]),
            at_least=1e-6,
        ),
    ]


def _trajectories(dataset: xr.Dataset) -> list[Claim]:
    diverges = dataset["point_drift"] > 4 * dataset["point_drift_stderr"]
    if not diverges.any():
        return []
    above, below = (
        {name: _growth(dataset, name, start, diverges) for name in ("x", "gradient", "value")}
        for start in dataset["start"].values
    )
    found = []
    for id_, statement, exponents in (
        (
            "diverges_below",
            "From x0 < −2 iterates, gradients and values go to infinity (least exponent of k)",
            below,
        ),
        (
            "diverges_above",
            "From x0 > −1 iterates and values go to infinity (least exponent of k)",
            {"x": above["x"], "value": above["value"]},
        ),
        (
            "gradients_above",
            "From x0 > −1 the gradients too go to infinity (exponent of k; f is linear there, so "
            "|∇f| is constant)",
            {"gradient": above["gradient"]},
        ),
    ):
        least = min((pair for pairs in exponents.values() for pair in pairs), key=lambda p: p[0])
        found.append(
            assess(
                id_, statement, _THEOREM,
                measured=least[0], uncertainty=2 * least[1], at_least=1e-3,
            )
        )  # fmt: skip
    ratios = _rate_over_drift(dataset).where(diverges)
    found.append(
        assess(
            "rate_is_the_drift",
            "The iterate moves by η_k D/n a step (speed over D/n: the one farthest from 1)",
            "stationary drift",
            measured=float(ratios.values.flat[np.nanargmax(np.abs(ratios.values - 1))]),
            at_least=0.9,
            at_most=1.1,
            beyond_the_paper=True,
        )
    )
    return found


def _growth(
    dataset: xr.Dataset, name: str, start: float, diverges: xr.DataArray
) -> list[tuple[float, float]]:
    """Exponents of k and their standard errors over the second half of the runs that diverge."""
    step = dataset["step"].values
    late = step >= step[-1] / 2
    values = np.abs(dataset[name].sel(start=start).values)
    found = []
    for where in np.argwhere(diverges.values):
        law = scaling.fit_power_law(step[late], values[tuple(where)][late])
        found.append((law.exponent, law.stderr))
    return found


def _rate_over_drift(dataset: xr.Dataset) -> xr.DataArray:
    step = dataset["step"].values
    eta = adam.step_size("inverse_sqrt", dataset.attrs["step_size"], np.arange(step[-1]))
    first = int(np.searchsorted(step, step[-1] // 4))
    spent = float(np.asarray(eta, np.float64)[step[first] : step[-1]].sum())
    moved = abs(dataset["x"].isel(step=-1) - dataset["x"].isel(step=first))
    return moved / spent * dataset["n"] / dataset["point_drift"]


def _sign_sgd(dataset: xr.Dataset) -> list[Claim]:
    excess = np.abs(dataset["sign_drift"] - (dataset["n"] - 2)).max()
    return [
        assess(
            "sign_sgd",
            "Sign-SGD, β1 = β2 = 0, diverges for every n ≥ 3 under every sampling scheme: "
            "D = n − 2 (largest deviation)",
            _THEOREM,
            measured=float(excess),
            at_most=1e-9,
        )
    ]


def _d1(dataset: xr.Dataset) -> list[Claim]:
    n, ratio = dataset["member_n"].values, dataset["paper_d1_ratio"].values
    infimum, attained = dataset["sign_infimum"].values, dataset["sign_member_d1"].values
    found = [
        assess(
            "paper_d1_n3",
            "With a = 1/(n−1)² the counterexample has D1 = 2n² or less at n = 3 (D1/(2n²))",
            "Section 3: the choice of a, stated as D1 = 2n²",
            measured=float(ratio[n == 3][0]),
            at_most=1.0,
        ),
        assess(
            "paper_d1",
            f"… and for n = 4 … {n[-1]} (largest D1/(2n²); the value tends to 1/2)",
            "Section 3: the choice of a, stated as D1 = 2n²",
            measured=float(ratio[n > 3].max()),
            at_most=1.0,
        ),
        assess(
            "sign_sgd_small_d1",
            f"Members with n < D1 < 2n² on which Sign-SGD diverges, n = 3 … {n[-1]} (largest "
            "D1/(2n²), certified in rational arithmetic; the infimum n²/⌊(n−1)/2⌋ is proved)",
            "the paper's open question",
            measured=float(
                np.where(dataset["sign_member_drift"] > 0, attained / (2 * n**2), np.inf).max()
            ),
            at_most=1.0,
            beyond_the_paper=True,
        ),
        assess(
            "sign_sgd_infimum",
            "… with D1 as near to the infimum as one likes (largest D1/infimum − 1 at a = 1e-6)",
            "the paper's open question",
            measured=float((attained / infimum - 1).max()),
            at_least=0.0,
            at_most=1e-3,
            beyond_the_paper=True,
        ),
    ]
    least = (dataset["least_d1"] / (2 * dataset["d1_n"] ** 2)).min("d1_n").sortby("d1_beta2")
    for beta1 in dataset["d1_beta1"].values:
        ratios = least.sel(d1_beta1=beta1)
        smallest = float(ratios["d1_beta2"][0])
        reached = ratios["d1_beta2"].values[(ratios < 1).values]
        where = f"; below 1 up to β2 = {reached[-1]:g}" if len(reached) else ""
        found.append(
            assess(
                f"adam_small_d1_beta1_{beta1:g}",
                f"Members with n < D1 < 2n² on which Adam diverges at β1 = {beta1:g}, β2 = "
                f"{smallest:g}, cyclic (least D1/(2n²) found over n and tables of slopes{where})",
                "the paper's open question; found numerically",
                measured=float(ratios[0]),
                at_most=1.0,
                beyond_the_paper=True,
            )
        )
    return found


def _patterns(dataset: xr.Dataset) -> list[Claim]:
    return [
        assess(
            "cyclic_is_least",
            "Of all sequences of epoch permutations cyclic order has the least drift (share of the "
            "square in which a pattern of two or three epochs has less; n = 3 … 6)",
            "our conjecture",
            measured=float(dataset["share_below_cyclic"].max()),
            at_most=0.0,
            beyond_the_paper=True,
        ),
        assess(
            "cyclic_region_is_every_order",
            "The cyclic region is where Adam diverges for every order (least drift of these "
            "patterns at the cyclic boundary, where the cyclic drift is 0)",
            "our conjecture, searched and not proved",
            measured=float(dataset["lowest_at_edges"].min()),
            at_least=-1e-9,
            beyond_the_paper=True,
        ),
    ]
