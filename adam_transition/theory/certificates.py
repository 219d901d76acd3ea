"""Certificates: the diagram and the boundary as statements that anybody can prove again.

A certificate holds no numbers to be believed, only where to look: a tree of rectangles with the
sign of the drift on each, and intervals of β2 at whose ends the drift has opposite signs. Whoever
has it recomputes the signs in ball arithmetic, which takes seconds; `tools/check_certificate.py`
does so with python-flint and nothing of this package. docs/mathematics/certificates.md says what is
proved and how.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from flint import arb, ctx, fmpq

from adam_transition.sampling import Sampling
from adam_transition.theory import balls

FORMAT = "adam_transition certificate 1"
AWAY, BACK, OPEN = "+", "-", "?"
"""Signs: D > 0, D < 0, undecided."""

SPLIT, RISES, FALLS = "s", "i", "d"
"""Other nodes: split, and of intervals those on which D rises or falls."""

_TREE_PRECISION = 80
_DEEPEST_INTERVAL = 60
_WIDTHS = 2.0**-41, 2.0**-40, 2.0**-35, 2.0**-30, 2.0**-20
"""Of the enclosures that are tried, 4.5e-13 first."""


class Box(NamedTuple):
    """[i, i+1] × [j, j+1] in units of 2^−level: β1 and β2."""

    level: int
    i: int
    j: int
    sign: str


class Shares(NamedTuple):
    """Areas in [0, 1)², exact."""

    away: Fraction  # D > 0, proved
    back: Fraction  # D < 0, proved
    undecided: Fraction
    iterates: Fraction  # proved and β1 < √β2: by Theorem 1 it is what iterates do


class Edges(NamedTuple):
    """All sign changes of D in β2 for one β1, or those that were found."""

    sampling: Sampling
    beta1: Fraction
    starts_away: bool  # whether D > 0 below the first change, at the least β2 whose sign is proved
    intervals: tuple[tuple[Fraction, Fraction], ...]  # each holds a sign change, in ascending order
    cover: str  # tree of [0, 1], which proves that there are no others; cyclic order only
    points: tuple[tuple[Fraction, str], ...]  # β2 elsewhere, with the sign of D there


def tree_of_area(slopes: Sequence[fmpq], depth: int) -> str:
    """The unit square in rectangles on which D has one sign in cyclic order, as a quadtree.

    Nodes in preorder; the quarters of a node with β1 rising slowest, then β2.

    Args:
      slopes: the table, in its order.
      depth: rectangles are at least 2^−depth wide.
    """
    with ctx.workprec(_TREE_PRECISION):
        table = balls.cyclic(slopes)
        moment = lru_cache(None)(lambda *at: balls.first_moment(table, *_interval(*at)))
        root = lru_cache(None)(lambda *at: balls.inverse_root(table, *_interval(*at)))

        def nodes(level: int, i: int, j: int) -> Iterator[str]:
            radius = _interval(level, 0)[1]
            sign = _sign(balls.drift_over(moment(level, i), root(level, j), radius, radius))
            if sign != OPEN or level == depth:
                yield sign
                return
            yield SPLIT
            for x in (0, 1):
                for y in (0, 1):
                    yield from nodes(level + 1, 2 * i + x, 2 * j + y)

        return "".join(nodes(0, 0, 0))


def _sign(ball: arb) -> str:
    ball = ball + ball * arb(0, 1e-6)  # so that other roundings, as in the checker, come to it too
    return AWAY if ball > 0 else BACK if ball < 0 else OPEN


def _interval(level: int, i: int) -> tuple[fmpq, fmpq]:
    """Centre and radius of the i-th interval of that level."""
    return fmpq(2 * i + 1, 1 << (level + 1)), fmpq(1, 1 << (level + 1))


def boxes(tree: str) -> Iterator[Box]:
    """The rectangles of a tree that are not split.

    Raises:
      ValueError: it is not a tree.
    """
    waiting = [(0, 0, 0)]
    for node in tree:
        if not waiting or node not in (AWAY, BACK, OPEN, SPLIT):
            raise ValueError("not a tree of rectangles")
        level, i, j = waiting.pop()
        if node == SPLIT:
            quarters = [(level + 1, 2 * i + x, 2 * j + y) for x in (0, 1) for y in (0, 1)]
            waiting.extend(reversed(quarters))
        else:
            yield Box(level, i, j, node)
    if waiting:
        raise ValueError("a tree of rectangles that ends too early")


def shares(tree: str) -> Shares:
    """The areas that a tree claims."""
    found = {AWAY: Fraction(0), BACK: Fraction(0), OPEN: Fraction(0)}
    iterates = Fraction(0)
    for level, i, j, sign in boxes(tree):
        area = Fraction(1, 4**level)
        found[sign] += area
        if sign != OPEN and (i + 1) ** 2 <= j << level:  # β1 < √β2 inside the rectangle
            iterates += area
    return Shares(found[AWAY], found[BACK], found[OPEN], iterates)


def edges(
    slopes: Sequence[fmpq],
    beta1: Fraction,
    sampling: Sampling,
    found: Sequence[float],
    points: Sequence[Fraction] = (),
) -> Edges:
    """Encloses sign changes of D that were found with floating point, and looks for others.

    Enclosures have a width of 4.5e-13 if the sign can be proved at both ends, else a greater one.

    Args:
      slopes: the table.
      beta1: β1, in [0, 1).
      sampling: `cyclic`, `random_shuffling` or `with_replacement`.
      found: approximate β2 of all sign changes, ascending, in (0, 1).
      points: β2 in (0, 1) at which the sign of D is proved besides. In cyclic order the whole of
        [0, 1] is covered instead.

    Raises:
      ValueError: a sign or, in cyclic order, that there are no other changes could not be proved;
        or as for `balls.random_drift_at`.
    """

    def sign(beta2: Fraction) -> str:
        b1, b2 = balls.exact([beta1, beta2])
        if sampling == "cyclic":
            return _sign(balls.cyclic_drift_at(slopes, b1, b2))
        return _sign(balls.random_drift_at(slopes, b1, b2, sampling))

    intervals, signs = [], []
    for beta2 in found:
        for width in _WIDTHS:
            half = min(width / 2, beta2 / 4, (1 - beta2) / 4)
            low, high = Fraction(beta2 - half), Fraction(beta2 + half)
            ends = sign(low), sign(high)
            if set(ends) == {AWAY, BACK}:
                break
        else:
            raise ValueError(f"beta1={beta1}: no sign change was proved near beta2={beta2!r}")
        intervals.append((low, high))
        signs += [(low, ends[0]), (high, ends[1])]
    cover, tried = "", []
    if sampling == "cyclic":
        cover = tree_of_interval(slopes, beta1)
        if proved_changes(cover) != len(intervals):
            raise ValueError(
                f"beta1={beta1}: {len(intervals)} sign changes in beta2 were found, and that there "
                "are no others could not be proved"
            )
        signs.append((Fraction(1), cover.replace(SPLIT, "")[-1]))
    else:
        tried = [(point, sign(point)) for point in points]
    in_order = [one for _, one in sorted([*signs, *tried])]
    changes = sum(one != other for one, other in pairwise(in_order))
    if OPEN in in_order or changes != len(intervals):
        raise ValueError(f"beta1={beta1}: the signs of the drift do not fit to the changes found")
    starts_away = not in_order or in_order[0] == AWAY
    return Edges(sampling, beta1, starts_away, tuple(intervals), cover, tuple(tried))


def tree_of_interval(slopes: Sequence[fmpq], beta1: Fraction) -> str:
    """[0, 1] in intervals of β2 on which D has one sign, or rises or falls, in cyclic order.

    Nodes in preorder, halves ascending. The first and the last interval have a sign, and D rises
    or falls only where it changes sign.
    """
    with ctx.workprec(_TREE_PRECISION):
        table = balls.cyclic(slopes)
        [at], zero = balls.exact([beta1]), fmpq(0)
        m = balls.first_moment(table, at, zero)

        def sign_at(beta2: fmpq) -> str:
            root = balls.inverse_root(table, beta2, zero)
            return _sign(balls.drift_over(m, root, zero, zero))

        def nodes(level: int, i: int) -> Iterator[str]:
            centre, radius = _interval(level, i)
            root = balls.inverse_root(table, centre, radius)
            sign = _sign(balls.drift_over(m, root, zero, radius))
            slope = _sign(balls.slope_over(m, root))
            inside = 0 < i < (1 << level) - 1
            if sign != OPEN:
                yield sign
            elif inside and slope != OPEN and sign_at(centre - radius) != sign_at(centre + radius):
                yield RISES if slope == AWAY else FALLS
            elif level == _DEEPEST_INTERVAL:
                yield OPEN
            else:
                yield SPLIT
                yield from nodes(level + 1, 2 * i)
                yield from nodes(level + 1, 2 * i + 1)

        return "".join(nodes(0, 0))


def proved_changes(cover: str) -> int | None:
    """How many sign changes a tree of [0, 1] proves; None if it leaves that open.

    Between two signs, D must only rise or only fall.
    """
    leaves = "".join(node for node, _ in groupby(cover.replace(SPLIT, "")))
    signs = leaves.replace(RISES, "").replace(FALLS, "")
    turns = RISES + FALLS in leaves or FALLS + RISES in leaves
    if not signs or OPEN in leaves or turns or leaves[0] != signs[0] or leaves[-1] != signs[-1]:
        return None
    return sum(one != other for one, other in pairwise(signs))


def as_json(slopes: Sequence[Fraction], tree: str, found: Sequence[Edges]) -> dict[str, Any]:
    """The certificate as JSON: numbers are written as fractions."""
    areas = shares(tree)
    return {
        "format": FORMAT,
        "statement": (
            "D(beta1, beta2) is the stationary drift of Adam (epsilon = 0) on f_i = slopes[i]*u. "
            "area: nodes of a quadtree of [0,1]^2 in preorder, '+' where D > 0 in cyclic order, "
            "'-' where D < 0, '?' where nothing is claimed. edges: D has opposite signs at the "
            "ends of each interval of beta2. In cyclic order the cover proves that there are no "
            "other changes; in the random orders the signs at the points are proved besides."
        ),
        "slopes": [str(slope) for slope in slopes],
        "area": {
            "tree": tree,
            "areas": {
                AWAY: str(areas.away),
                BACK: str(areas.back),
                OPEN: str(areas.undecided),
            },
        },
        "edges": [
            {
                "sampling": one.sampling,
                "beta1": str(one.beta1),
                "starts_away": one.starts_away,
                "intervals": [[str(low), str(high)] for low, high in one.intervals],
                "cover": one.cover,
                "points": [[str(point), sign] for point, sign in one.points],
            }
            for one in found
        ],
    }
