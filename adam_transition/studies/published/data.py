"""Maps of the counterexample at all settings that a picture leaves open, and their scores."""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, Num

from adam_transition import adam, problems
from adam_transition.sampling import Sampling, scheme
from adam_transition.studies.phase import backends, simulation
from adam_transition.studies.phase.diagram import PhaseDiagram
from adam_transition.studies.published.digitised import PublishedMap, counterexample_2022
from adam_transition.sweeps import sweep
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable

OWN_SLOPE = "1/(n-1)^2"
"""The slope a of the 2026 paper, in words."""

EPSILON = 1e-8
"""ε of all settings."""


class Setting(NamedTuple):
    """One way to fill in what the picture does not say; a coordinate along `setting` for each."""

    sampling: Sampling
    n: int
    a: float
    slope: str  # a as it was given: a number or `OWN_SLOPE`
    schedule: adam.Schedule
    step_size: float  # η0
    initialization: adam.Initialization
    x0: float
    stream: int  # number of the index stream


@dataclass(frozen=True)
class PublishedSpec:
    """The settings to try: every combination."""

    samplings: tuple[Sampling, ...]
    num_components: tuple[int, ...]
    a: tuple[Fraction | None, ...]  # None: 1/(n−1)² for each n
    schedules: tuple[adam.Schedule, ...]
    step_sizes: tuple[float, ...]
    initializations: tuple[adam.Initialization, ...]
    x0: tuple[float, ...]
    num_streams: int  # of each random order
    num_steps: int
    seed: int

    def programs(self) -> list[PhaseDiagram]:
        """One diagram for each program: one order, schedule and initialization each."""
        picture = counterexample_2022()
        spec = PhaseDiagram(
            problem="counterexample",
            num_components=self.num_components,
            samplings=self.samplings[:1],
            beta1=picture.beta1,
            beta2=picture.beta2,
            num_steps=self.num_steps,
            epsilon=EPSILON,
            seed=self.seed,
        )
        spec = dataclasses.replace(spec, backend=backends.fastest_backend(spec))
        return [
            dataclasses.replace(
                spec, samplings=(order,), schedule=schedule, initialization=initialization
            )
            for order, schedule, initialization in itertools.product(
                self.samplings, self.schedules, self.initializations
            )
        ]

    def rows(self, order: Sampling) -> list[tuple[Fraction | None, float, float, int]]:
        """Slope, step size, start and stream of each table, which has a row for every n."""
        streams = range(self.num_streams if scheme(order).is_random else 1)
        return list(itertools.product(self.a, self.step_sizes, self.x0, streams))

    @property
    def num_settings(self) -> int:
        """The number of `settings`."""
        programs = len(self.schedules) * len(self.initializations)
        tables = sum(len(self.rows(order)) for order in self.samplings)
        return programs * tables * len(self.num_components)

    def settings(self) -> list[Setting]:
        """All settings, in the order of `programs`, `rows` and n."""
        return [
            Setting(
                diagram.samplings[0],
                n,
                float(problems.counterexample(n, a).a),
                OWN_SLOPE if a is None else str(a),
                diagram.schedule,
                step_size,
                diagram.initialization,
                x0,
                stream,
            )
            for diagram in self.programs()
            for a, step_size, x0, stream in self.rows(diagram.samplings[0])
            for n in self.num_components
        ]


def coordinates(spec: PublishedSpec) -> xr.Dataset:
    """The labelled axes: those of the picture, and the settings."""
    picture, settings = counterexample_2022(), spec.settings()
    coords: dict[str, Any] = {
        name: ("setting", np.array(column, dtype=object if isinstance(column[0], str) else None))
        for name, column in zip(Setting._fields, zip(*settings, strict=True), strict=True)
    }
    for name, values, symbol in (
        ("beta1", picture.beta1, "β1"),
        ("beta2", picture.beta2, "β2"),
    ):
        coords[name] = (name, values, {"long_name": symbol, "units": "1"})
    return xr.Dataset(coords=coords)


def maps(spec: PublishedSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`published` over (beta1, beta2), and `gap` over (setting, beta1, beta2): |x_T − x*|."""
    picture = counterexample_2022()
    found = [
        pieces.keep(str(i), partial(_gaps, spec, diagram))
        for i, diagram in enumerate(spec.programs())
    ]
    gaps = np.concatenate([one for [one] in found])
    shape = len(gaps), len(picture.beta1), len(picture.beta2)
    return {
        "published": variable(
            ("beta1", "beta2"), picture.values, "published distance |x_T − x*|, clipped at 70"
        ),
        "gap": variable(
            ("setting", "beta1", "beta2"), gaps.reshape(shape), "distance |x_T − x*| at the end"
        ),
    }


def _gaps(spec: PublishedSpec, diagram: PhaseDiagram) -> list[np.ndarray]:
    """|x_T − x*| of all settings of a program, of shape (settings, cells)."""
    [order] = diagram.samplings
    tables = [
        _table(dataclasses.replace(diagram, x0=x0, step_size=step_size), a, stream)
        for a, step_size, x0, stream in spec.rows(order)
    ]
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *tables)
    num_rows = len(rows.step_size)
    one = simulation.cells(diagram)
    cells = {name: np.repeat(values[:1], num_rows, axis=0) for name, values in one.items()}
    gaps = np.empty((num_rows, cells["one_minus_beta1"].shape[1]), np.float32)

    def write(block: sweep.Block, values: Mapping[str, np.ndarray]) -> None:
        gaps[block.rows, block.columns] = values["gap"]

    tile = sweep.block_shape(gaps.shape, _CELLS_PER_TILE)
    sweep.run(backends.program(diagram, order), rows, cells, tile=tile, chunk=tile, write=write)
    return [gaps]


_CELLS_PER_TILE = 1 << 14


def _table(diagram: PhaseDiagram, a: Fraction | None, stream: int) -> simulation.Row:
    """A row for each n, on an index stream of its own."""
    rows = simulation.rows(diagram, a)
    return rows._replace(key=jax.vmap(partial(jax.random.fold_in, data=stream))(rows.key))


def scores(dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """How near the map of each setting comes to the picture; see `score`."""
    picture = counterexample_2022()
    found = [score(picture, gaps) for gaps in dataset["gap"].values]
    labels = (
        "root mean square difference over the scale",
        "share of the clipped cells that are not at the end of the scale",
        "mean distance in β2 of the contours at half of the scale",
    )
    return {
        name: variable("setting", np.array(values), label)
        for name, values, label in zip(Score._fields, zip(*found, strict=True), labels, strict=True)
    }


class Score(NamedTuple):
    """A comparison of a map with a published one."""

    rms: float
    wrongly_clipped: float
    contour_distance: float


def score(picture: PublishedMap, gaps: Num[np.ndarray, "K W"]) -> Score:
    """Compares a map with a published one.

    Args:
      picture: the published map.
      gaps: ours on the same grid; cells that have overflowed count as clipped.

    Returns:
      The root mean square of the difference over the cells that the picture does not clip, in units
      of the scale; the share of the other cells in which ours is farther than a reading's
      resolution below the scale's end; and the mean distance, in β2, of the contours at half of the
      scale, over the β1 where both maps cross it (NaN if there is none).
    """
    ours, clipped = picture.on_scale(gaps), picture.is_clipped()
    difference = (ours - picture.values)[~clipped]
    edges = [crossing(picture.beta2, one, picture.middle) for one in (ours, picture.values)]
    apart = edges[0] - edges[1]
    apart = np.abs(apart[np.isfinite(apart)])
    return Score(
        rms=float(np.sqrt(np.mean(difference**2)) / (picture.high - picture.low)),
        wrongly_clipped=float(np.mean(ours[clipped] < picture.high - picture.resolution)),
        contour_distance=float(apart.mean()) if apart.size else np.nan,
    )


def crossing(
    beta2: Float[np.ndarray, " W"], values: Num[np.ndarray, "K W"], level: float
) -> Float[np.ndarray, " K"]:
    """The largest β2 at which each row crosses a level, by linear interpolation; NaN if none does.

    Args:
      beta2: the axis, increasing.
      values: a map.
      level: the level.
    """
    above = values >= level
    changes = above[:, 1:] != above[:, :-1]
    last = changes.shape[1] - 1 - np.argmax(changes[:, ::-1], axis=1)
    row = np.arange(len(values))
    left, right = values[row, last], values[row, last + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (level - left) / (right - left)
    found = beta2[last] + share * (beta2[last + 1] - beta2[last])
    return np.where(changes.any(axis=1), found, np.nan)
