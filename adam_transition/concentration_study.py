"""The data set behind `experiments.concentration`: the lemma's band, and the update's direction.

The lemma says how near v_k is to E_k v_k, its expectation given everything before the draw of step
k. With β2 very near 1, where it speaks, v forgets over millions of steps; but it is a linear filter
of the index stream, so it can be drawn in blocks.

Beside it stands the mean over all histories, of which the lemma does not speak, and of which it
would be false: Var v = (1−β2)/(1+β2)·Var g², so √(E v/v) spreads like √(1−β2), while C_lower and
C_upper are 1 ± O(1−β2).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key
from scipy import stats

from adam_transition import adam, bounds, keys, sampling, store
from adam_transition.boundary import divergence_intervals
from adam_transition.claims import Claim, assess
from adam_transition.drift import counterexample_table, stationary_drift
from adam_transition.store import Variable
from adam_transition.studies import Plan

QUANTILES = (0.001, 0.05, 0.5, 0.95, 0.999)
TABLES = ("counterexample", "normal")
READINGS = ("given the past", "over all histories")
"""Of the mean in the lemma's band: the lemma's own, and one that is not."""
_CHAINS = 64
_MEMORIES_OF_BURN_IN = 12
_MEMORIES_APART = 3
_BLOCK = 0.05  # of a memory
_DIMENSION = 40
_LEAST_Q = 1e-3  # of the direction


@dataclass(frozen=True)
class ConcentrationStudy:
    """What to compute; see `plan`."""

    num_components: tuple[int, ...]
    relative_delta: tuple[float, ...]  # δ in units of 1/(4n)
    relative_q: tuple[float, ...]  # 1 − β2 in units of the greatest at which the lemma speaks
    samplings: tuple[sampling.Sampling, ...]  # of the direction
    num_samples: int  # draws of v for each point
    beta1: float  # of the direction
    num_beta2: int
    seed: int


def plan(study: ConcentrationStudy) -> Plan:
    """The parts of the data set.

    Variables: `failures` over (reading, table, n, delta, beta2), the share of draws with a
    coordinate outside the band, with `failures_stderr`; `quantile` of √(E v/v) for the coordinate
    that spreads most, with a quantile axis; `spread`, its standard deviation, and `spread_law`,
    the first-order value of that.
    `one_minus_beta2`, `probability`, `lower`, `upper` over (n, delta, beta2) are the lemma's.
    For the direction: `push` over (sampling, n, direction_beta2), E[m/√v] in units of its limit as
    β2 → 1 on the counterexample, and `beta2_star`; `cosine`, `wrong_share` over (sampling,
    direction_beta2) on a table in many dimensions.
    """
    parts = {"failures": _band, "push": _direction_of_one, "wrong_share": _direction_of_many}
    return Plan(_coordinates(study), {name: partial(part, study) for name, part in parts.items()})


class Draws(NamedTuple):
    """Draws of the second moments of a table of d columns."""

    before: Float[np.ndarray, "S chains d"]  # stationary v
    after: Float[np.ndarray, "S chains d"]  # a step later


def second_moments(
    table: Float[np.ndarray, "n d"],
    one_minus_beta2: float,
    key: Key[Array, ""],
    *,
    num_samples: int,
) -> Draws:
    """Draws of the stationary v with replacement, `num_samples` or a little more over all chains.

    Chains are independent; draws of a chain lie 3/(1−β2) steps apart. Of a block of up to
    0.05/(1−β2) steps only the number of visits to each component is drawn, and the visits share
    their mean weight: that changes the variance of v by a factor of at least 1 − 0.05²/12. Each
    draw is followed by one step of Adam's.
    """
    q, squares = one_minus_beta2, table**2
    n = len(table)
    block = max(1, int(_BLOCK / q))
    kept = (1 - q) ** block
    blocks_apart = int(np.ceil(_MEMORIES_APART / (q * block)))
    burn_in = int(np.ceil(_MEMORIES_OF_BURN_IN / (q * block)))
    per_chain = -(-num_samples // _CHAINS)
    generator = keys.generator(key)
    v = np.broadcast_to(squares.mean(axis=0), (_CHAINS, table.shape[1]))
    before, after = [], []
    for k in range(burn_in + blocks_apart * per_chain):
        visits = generator.multinomial(block, np.full(n, 1 / n), size=_CHAINS)
        v = kept * v + (1 - kept) / block * (visits @ squares)
        if k >= burn_in and (k - burn_in + 1) % blocks_apart == 0:
            before.append(v)
            after.append((1 - q) * v + q * squares[generator.integers(0, n, _CHAINS)])
    return Draws(np.stack(before), np.stack(after))


def table_of(kind: str, n: int, key: Key[Array, ""]) -> Float[np.ndarray, "n d"]:
    """The counterexample's slopes, or eight columns of standard normal gradients."""
    if kind == "counterexample":
        return counterexample_table(n)
    return np.asarray(jax.random.normal(key, (n, 8)), np.float64)


def many_dimensions(n: int, key: Key[Array, ""]) -> Float[np.ndarray, "n d"]:
    """Counterexamples in 40 coordinates, a from 1e-3 to 1, hits at random components.

    The sum over components is ±1 in every coordinate, so each has a boundary β2* of its own.
    """
    hits, signs = jax.random.split(key)
    a = np.geomspace(1e-3, 1, _DIMENSION)
    place = np.asarray(jax.random.randint(hits, (_DIMENSION,), 0, n))
    sign = np.asarray(jax.random.rademacher(signs, (_DIMENSION,)))
    table = np.broadcast_to(-a, (n, _DIMENSION)).copy()
    table[place, np.arange(_DIMENSION)] = 1 + (n - 1) * a
    return table * sign


def _coordinates(study: ConcentrationStudy) -> xr.Dataset:
    # even in log(1 − β2) towards 1
    q = np.geomspace(1, _LEAST_Q, study.num_beta2)
    return xr.Dataset(
        coords={
            "reading": ("reading", np.array(READINGS, dtype=object)),
            "table": ("table", np.array(TABLES, dtype=object)),
            "sampling": ("sampling", np.array(study.samplings, dtype=object)),
            "n": ("n", np.array(study.num_components), {"long_name": "n", "units": "1"}),
            "delta": (
                "delta", np.array(study.relative_delta), {"long_name": "δ·4n", "units": "1"},
            ),
            "beta2": (
                "beta2", np.array(study.relative_q),
                {"long_name": "1 − β2 over the greatest informative one", "units": "1"},
            ),
            "quantile_level": ("quantile_level", np.array(QUANTILES)),
            "direction_beta2": ("direction_beta2", 1 - q, {"long_name": "β2", "units": "1"}),
        }
    )  # fmt: skip


def _band(study: ConcentrationStudy, results: store.Store) -> None:
    shape = (len(study.num_components), len(study.relative_delta), len(study.relative_q))
    lemma = np.empty((4, *shape))
    failures = np.empty((2, len(READINGS), len(TABLES), *shape))
    spread = np.empty((2, len(TABLES), *shape))
    quantiles = np.empty((len(TABLES), *shape, len(QUANTILES)))
    key = sampling.stream_key(study.seed)
    for i, j, k in np.ndindex(shape):
        n = study.num_components[i]
        delta = study.relative_delta[j] / (4 * n)
        q = study.relative_q[k] * bounds.largest_informative(n, delta)
        band = bounds.concentration(n, q, delta)
        lemma[:, i, j, k] = q, band.probability, band.lower, band.upper
        for t, kind in enumerate(TABLES):
            cell_key = jax.random.fold_in(key, np.ravel_multi_index((t, i, j, k), (2, *shape)))
            table = table_of(kind, n, jax.random.fold_in(key, n))
            draw = partial(second_moments, table, q, cell_key, num_samples=study.num_samples)
            draws = Draws(*results.piece(f"draws {t} {i} {j} {k}", draw))
            mean = (table**2).mean(axis=0)
            ratio = np.sqrt(mean / draws.before)
            given = np.sqrt(((1 - q) * draws.before + q * mean) / draws.after)
            for r, values in enumerate((given, ratio)):
                outside = (values < band.lower) | (values > band.upper)
                shares = outside.any(axis=2).mean(axis=0)  # of a chain
                stderr = shares.std(ddof=1) / np.sqrt(len(shares))
                failures[:, r, t, i, j, k] = shares.mean(), stderr
            law = np.sqrt(q / (2 - q) * (table**2).var(axis=0)) / (2 * mean)
            worst = int(law.argmax())
            spread[:, t, i, j, k] = ratio[..., worst].std(), law[worst]
            quantiles[t, i, j, k] = np.quantile(ratio[..., worst], QUANTILES)
    dims = ("n", "delta", "beta2")
    names = {
        "one_minus_beta2": "1 − β2",
        "probability": "the lemma's probability",
        "lower": "C_lower",
        "upper": "C_upper",
    }
    for (name, long_name), one in zip(names.items(), lemma, strict=True):
        results.add(name, Variable(dims, np.float64, long_name), one)
    variable = Variable(("table", *dims, "quantile_level"), np.float64, "quantiles of √(E v/v)")
    results.add("quantile", variable, quantiles)
    variable = Variable(("table", *dims), np.float64, "standard deviation of √(E v/v)")
    results.add("spread", variable, spread[0])
    variable = Variable(("table", *dims), np.float64, "½ √(Var v)/E v")
    results.add("spread_law", variable, spread[1])
    every = ("reading", "table", *dims)
    variable = Variable(every, np.float64, "standard error of the share")
    results.add("failures_stderr", variable, failures[1])
    variable = Variable(every, np.float64, "share of draws outside the band")
    results.add("failures", variable, failures[0])


def _hyper(study: ConcentrationStudy) -> adam.Hyperparameters:
    q = 1 - np.asarray(_coordinates(study)["direction_beta2"])
    return adam.Hyperparameters(np.full_like(q, 1 - study.beta1), q)


def _direction_of_one(study: ConcentrationStudy, results: store.Store) -> None:
    shape = (len(study.samplings), len(study.num_components))
    push = np.empty((2, *shape, study.num_beta2))
    star = np.full((2, *shape), np.nan)
    key = sampling.stream_key(study.seed)
    for i, j in np.ndindex(shape):
        n, scheme = study.num_components[j], study.samplings[i]
        table = counterexample_table(n)
        limit = table.mean() / np.sqrt((table**2).mean())
        found = stationary_drift(table, _hyper(study), scheme, key=key)
        push[:, i, j] = -found.drift[:, 0] / (n * limit), found.stderr[:, 0] / (n * limit)
        [intervals] = divergence_intervals(table, [study.beta1], scheme, key=key)
        if intervals:
            star[:, i, j] = intervals[-1].high.beta2, intervals[-1].high.stderr
    for name, one in (("beta2_star", star[0]), ("beta2_star_stderr", star[1])):
        results.add(name, Variable(("sampling", "n"), np.float64, "boundary β2*"), one)
    dims = ("sampling", "n", "direction_beta2")
    results.add("push_stderr", Variable(dims, np.float64, "standard error"), push[1])
    results.add("push", Variable(dims, np.float64, "E[m/√v] over its limit as β2 → 1"), push[0])


def _direction_of_many(study: ConcentrationStudy, results: store.Store) -> None:
    n = max(study.num_components)
    key = sampling.stream_key(study.seed)
    table = many_dimensions(n, key)
    gradient = table.mean(axis=0)
    values = np.empty((3, len(study.samplings), study.num_beta2))
    for i, scheme in enumerate(study.samplings):
        found = stationary_drift(table, _hyper(study), scheme, key=key, num_samples=20_000)
        direction = -found.drift
        norms = np.linalg.norm(direction, axis=1)
        limit = gradient / np.sqrt((table**2).mean(axis=0))
        values[0, i] = direction @ gradient / (norms * np.linalg.norm(gradient))
        values[1, i] = direction @ limit / (norms * np.linalg.norm(limit))
        values[2, i] = (direction * gradient < 0).mean(axis=1)
    dims = ("sampling", "direction_beta2")
    names = {
        "cosine": "cosine of E[m/√v] and ∇f",
        "cosine_to_limit": "cosine of E[m/√v] and its limit as β2 → 1",
        "wrong_share": "share of coordinates with the wrong sign",
    }
    for (name, long_name), one in zip(names.items(), values, strict=True):
        results.add(name, Variable(dims, np.float64, long_name), one)


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (table, n, δ, β2): what the lemma allows, what was found, and the remark beside it.

    `over_all_histories` is the share of draws outside the band if E v were the mean over all
    histories; `spread_over_law` the spread of √(E v/v) over its first order in 1 − β2.
    """
    found = []
    for t, i, j, k in np.ndindex(dataset["spread"].shape):
        one = dataset.isel(table=t, n=i, delta=j, beta2=k)
        given, histories = one["failures"].values
        found.append(
            {
                "table": str(one["table"].values),
                "n": int(one["n"]),
                "delta": float(one["delta"]) / (4 * int(one["n"])),
                "one_minus_beta2": float(one["one_minus_beta2"]),
                "allowed": 1 - float(one["probability"]),
                "given_the_past": float(given),
                "over_all_histories": float(histories),
                "spread_over_law": float(one["spread"] / one["spread_law"]),
            }
        )
    return found


def claims(dataset: xr.Dataset) -> list[Claim]:
    """The lemma, and the direction of the update."""
    return [_lemma_claim(dataset), *_direction_claims(dataset)]


def most_failures(
    share: Float[np.ndarray, "..."], num_draws: int, level: float
) -> Float[np.ndarray, "..."]:
    """The greatest probability of failing that a share of draws leaves open (Clopper–Pearson)."""
    count = np.rint(np.asarray(share) * num_draws)
    return np.where(
        count >= num_draws,
        1.0,
        stats.beta.ppf(1 - level, count + 1, np.maximum(num_draws - count, 1)),
    )


def _lemma_claim(dataset: xr.Dataset) -> Claim:
    """Failures beside those allowed, where as many draws can tell."""
    # draws of a chain lie three memories apart: a correlation of e⁻³ costs a tenth of them
    num_draws = int(dataset.attrs["num_samples"] / 1.1)
    failures = (
        dataset["failures"].sel(reading=READINGS[0]).transpose("table", "n", "delta", "beta2")
    )
    allowed = (1 - dataset["probability"]).transpose("n", "delta", "beta2").values
    level = 0.025 / failures.size
    told = allowed > float(most_failures(np.zeros(()), num_draws, level))
    excess = np.where(told, failures.values - allowed, -np.inf)
    error = most_failures(failures.values, num_draws, level) - failures.values
    worst = np.unravel_index(np.argmax(excess + error), excess.shape)
    told_q = dataset["one_minus_beta2"].transpose("n", "delta", "beta2").values[told]
    where = (
        f"at 1 − β2 from {told_q.min():.1g} to {told_q.max():.1g}, n = "
        f"{', '.join(str(n) for n in dataset['n'].values[told.any(axis=(1, 2))])}"
        if told.any()
        else "nowhere"
    )
    return assess(
        "lemma",
        "C_lower ≤ √(E_k v/v) ≤ C_upper, with E_k the mean given everything before the draw, fails "
        "no more often than the lemma allows, where it says anything (largest excess of the share "
        f"of draws, binomial error; of {int(told.sum())} (n, δ, β2) {where}, {num_draws} draws "
        "each can tell)",
        "Concentration lemma",
        measured=float(excess[worst]) if told.any() else np.nan,
        uncertainty=float(error[worst]),
        at_most=0.0,
    )


def _direction_claims(dataset: xr.Dataset) -> list[Claim]:
    wrong, q = dataset["wrong_share"], 1 - dataset["direction_beta2"].values
    # 1 − cosine of the angle to the limit, from one β2 to the next, over the last decade or so
    angle = 1 - dataset["cosine_to_limit"].transpose("sampling", "direction_beta2").values
    late = q <= 20 * q.min()
    exponents = np.diff(np.log(angle[:, late]), axis=1) / np.diff(np.log(q[late]))
    rises = wrong.diff("direction_beta2")
    return [
        assess(
            "direction_large_beta2",
            "In many dimensions ever fewer coordinates of E[m/√v] have the wrong sign as β2 grows "
            "(largest rise of their share; it falls from "
            f"{float(wrong.isel(direction_beta2=0).max()):.3f} to "
            f"{float(wrong.isel(direction_beta2=-1).max()):.3f} at β2 = {1 - q.min():g})",
            "Direction of the update",
            measured=float(rises.max()) if bool(rises.notnull().all()) else np.nan,
            at_most=0.0,
        ),
        assess(
            "direction_limit",
            "E[m/√v] tends to ∇f/√(E g²), each coordinate scaled by its own size (exponent with "
            "which 1 − cosine falls with 1 − β2, the least from one β2 to the next at "
            f"1 − β2 ≤ {20 * q.min():.2g})",
            "ergodic mean",
            measured=float(exponents.min()),
            at_least=1.0,
            ours=True,
        ),
    ]
