"""The β2 that is enough for every problem of a noise ratio, beside what others conclude from n.

The theorems' sufficient bounds are not advice: they hide constants, and are far from what is
needed. A public script took 1 − (1 − β1^n)/n^3.5 with the constant 1, and β2 = 0.9999999 at n = 75;
the worst problem known needs 0.9993 there.
"""

import math
from typing import NamedTuple

from adam_transition.problems import counterexample_table
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.class_threshold import sufficient

MOST_COMPONENTS = 1000
"""Up to this n the counterexample's threshold is computed; it costs a second."""


class WholeClass(NamedTuple):
    """1 − β2 for all one-dimensional problems with D0 = 0 and n components."""

    num_components: int  # n
    noise_ratio: float  # D1/n, the mean of the squared gradients over the square of their mean
    enough: float  # up to here the drift points down, with replacement (proved)
    counterexample: float  # from here on the counterexample with a = 1 diverges; NaN for large n
    theorem: float  # the sufficient bound of the theorems with the constant 1, which is not known


def whole_class(
    num_components: int, beta1: float = 0.9, *, noise_ratio: float | None = None
) -> WholeClass:
    """What is enough for every one-dimensional problem with D0 = 0; see `theory.class_threshold`.

    Args:
      num_components: n, mini-batches per epoch; 2 or more.
      beta1: β1, in [0, 1).
      noise_ratio: D1/n, at least 1; default: 2n, from which on the paper's divergence theorem has a
        problem for every β1 < √β2 below its boundary.

    Raises:
      ValueError: an argument is outside its range.

    >>> found = whole_class(75)
    >>> [round(1 - q, 5) for q in (found.enough, found.counterexample, found.theorem)]
    [0.98122, 0.99905, 1.0]
    """
    ratio = 2.0 * num_components if noise_ratio is None else noise_ratio
    if not 1 <= ratio < math.inf:
        raise ValueError(f"noise_ratio={ratio:g}: must be 1 or more, and finite")
    enough = sufficient(num_components, ratio * num_components, "with_replacement", beta1)
    worst = math.nan
    if 3 <= num_components <= MOST_COMPONENTS:
        [intervals] = divergence_intervals(counterexample_table(num_components, 1.0), [beta1])
        worst = 1 - intervals[-1].high.beta2 if intervals else math.nan
    theorem = (1 - beta1**num_components) / num_components**3.5
    return WholeClass(num_components, ratio, enough, worst, theorem)
