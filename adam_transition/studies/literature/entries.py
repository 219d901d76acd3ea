"""The scoreboard's rows: statements in our words with their sources, and what tests them."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from adam_transition.sampling import Sampling
from adam_transition.studies.literature import measurements
from adam_transition.studies.literature.measurements import Measured
from adam_transition.sweeps.claims import Claim, assess, assess_equal


class Entry(NamedTuple):
    """A published statement that the instrument can test."""

    id: str
    source: str
    statement: str  # with the measured quantity in brackets
    measure: Callable[[], Measured]
    at_least: float = -math.inf
    at_most: float = math.inf
    equals: float | None = None  # instead of a range
    tolerance: float = 0.0  # of `equals`
    ours: bool = False  # set beside the source's statement by us

    def claim(self, measured: Measured) -> Claim:
        """The statement, judged."""
        if self.equals is not None:
            return assess_equal(
                self.id, self.statement, self.source,
                measured=measured.value, uncertainty=measured.uncertainty, value=self.equals,
                tolerance=self.tolerance, resolution=self.tolerance, ours=self.ours,
            )  # fmt: skip
        return assess(
            self.id, self.statement, self.source,
            measured=measured.value, uncertainty=measured.uncertainty, at_least=self.at_least,
            at_most=self.at_most, ours=self.ours,
        )  # fmt: skip


class Untested(NamedTuple):
    """A published statement that this scoreboard does not test, and why."""

    source: str
    statement: str
    reason: str


_REDDI = "Reddi, Kale & Kumar 2018, arXiv:1904.09237"
_SHI = "Shi, Li, Hong & Sun, ICLR 2021, as submitted"
_SYMMETRY = "Dereich, Do, Jentzen & von Wurstemberger 2025, arXiv:2511.06675"
_REGIMES = "Bai et al. 2026, arXiv:2603.09581"

_WITHIN = 0.05
"""What an exponent may be off by: the power 1 is told from ½ and 1½."""

_OTHER_ORDERS: tuple[tuple[Sampling, str], ...] = (
    ("random_shuffling", "under random shuffling"),
    ("cyclic", "in cyclic order"),
)

ENTRIES = (
    Entry(
        "reddi_099",
        _REDDI,
        "Adam with (0.9, 0.99) goes to the wrong end on slope 1010 every 101st step, else −10 (the "
        "β2 up to which it does, in cyclic order)",
        partial(measurements.reddi_threshold, 0.99),
        at_least=0.99,
    ),
    Entry(
        "reddi_0999",
        "beside arXiv:1904.09237",
        "Nor is the common default (0.9, 0.999) enough on that example (the same β2)",
        partial(measurements.reddi_threshold, 0.999),
        at_least=0.999,
        ours=True,
    ),
    Entry(
        "shi_stated",
        _SHI,
        "RMSProp on slope C = 10 once in ten steps, else −1, passes to convergence at a β2 between "
        "0.63 and 0.64 (the exact threshold)",
        measurements.shi_threshold,
        at_least=0.63,
        at_most=0.64,
    ),
    Entry(
        "shi_two_large",
        f"beside {_SHI}",
        "That number belongs to two large slopes in a row in ten steps (the exact threshold)",
        partial(measurements.shi_threshold, (0, 1)),
        at_least=0.63,
        at_most=0.64,
        ours=True,
    ),
    Entry(
        "shi_diagram",
        f"beside {_SHI}",
        "Their phase diagram of 10⁶ steps over C and β2 has the boundary D = 0 (number of "
        "the 1240 cells where their criterion and the drift disagree, but for 23 whose drift is "
        "too small for so many steps)",
        measurements.shi_diagram,
        at_most=0.0,
        ours=True,
    ),
    Entry(
        "symmetric_data",
        _SYMMETRY,
        "On quadratics with symmetric data Adam comes to the minimiser (distance of its limit from "
        "it; centres ±1, ±0.25, β2 = 0.5, with replacement)",
        measurements.symmetric_bias,
        at_most=1e-12,
    ),
    Entry(
        "symmetry_rate",
        _SYMMETRY,
        "On data without symmetry its limit is off by a power 1 of 1 − β2 (exponent, with "
        "replacement; centres 0, 0, 0, 0, 1)",
        partial(measurements.bias_exponent, "with_replacement"),
        equals=1.0,
        tolerance=_WITHIN,
    ),
    *(
        Entry(
            f"symmetry_rate_{order}",
            "beside arXiv:2511.06675",
            f"The power is the same {where} (exponent, same centres)",
            partial(measurements.bias_exponent, order),
            equals=1.0,
            tolerance=_WITHIN,
            ours=True,
        )
        for order, where in _OTHER_ORDERS
    ),
    Entry(
        "symmetry_unskewed",
        "beside arXiv:2511.06675",
        "The power is 2 where the third moment vanishes without symmetry (exponent, with "
        "replacement; centres −5, −1, −1, −1, 4, 4)",
        partial(measurements.bias_exponent, "with_replacement", measurements.UNSKEWED),
        equals=2.0,
        tolerance=_WITHIN,
        ours=True,
    ),
    Entry(
        "symmetry_batch",
        _SYMMETRY,
        "The limit is off by a power 1 of 1/B for mini-batches of B draws (exponent, B = 4 … 1; "
        "centres 0, 0, 0, 0, 1)",
        measurements.bias_exponent_of_batch,
        equals=1.0,
        tolerance=_WITHIN,
    ),
    *(
        Entry(
            f"stable_regime_{k}",
            _REGIMES,
            f"On x^{k}/{k} Adam descends without crossing the minimiser exactly if {border} (share "
            "of the 2500 cells of a grid)",
            partial(measurements.stable_share, k),
            at_least=0.99,
        )
        for k, border in ((4, "β1 < β2"), (6, "β1 < β2^(3/4)"))
    ),
    Entry(
        "adopt_any_beta2",
        "beside arXiv:2411.02853 (ADOPT converges with any β2)",
        "ADOPT without its clip has no β2 at which it diverges on the counterexample, in cyclic "
        "order too (the largest such β2, 0 if there is none; n = 20, a = 1, β1 = 0.9)",
        measurements.adopt_threshold,
        at_most=0.0,
        ours=True,
    ),
    Entry(
        "muon_diverges",
        "beside arXiv:2605.08980 (Muon need not converge on convex problems)",
        "At its default β = 0.95, with Nesterov momentum, Muon diverges on the counterexample (the "
        "β up to which it does, in cyclic order; n = 20, a = 1)",
        measurements.muon_threshold,
        at_least=0.95,
        ours=True,
    ),
    Entry(
        "equal_betas",
        "beside arXiv:2601.21739 and Orvieto & Gower 2025",
        "Equal betas are no protection in themselves: β1 = β2 = 0.95, sound for language models, "
        "diverges on the counterexample (the drift, with replacement; n = 20, a = 1)",
        measurements.equal_betas_drift,
        at_least=0.0,
        ours=True,
    ),
    Entry(
        "half_life",
        "beside Marek et al. 2025 (keep the half-life of β2 in samples)",
        "The exact threshold asks for it near β2 = 1: 1 − β2* is proportional to B (exponent, B = "
        "1 … 3; counterexample with n = 20, a = 1, β1 = 0, with replacement)",
        measurements.threshold_exponent_of_batch,
        equals=1.0,
        tolerance=_WITHIN,
        ours=True,
    ),
)
"""What is tested, in order."""

UNTESTED = (
    Untested(
        _REGIMES,
        "Beyond β2^((k−1)/(2(k−2))) the spikes on x^k/k give way to a descent like that of signs",
        "The size of the step at the first crossing, the later steps and the growth over the "
        "running minimum all change smoothly there: no number of ours separates the regimes.",
    ),
    Untested(
        "arXiv:2605.10119",
        "The best β has (1 − β)T ≈ 1000; the best fixed β is 0.944",
        "The statement is about language models trained to many T; that takes accelerators.",
    ),
    Untested(
        "Malladi et al. 2022",
        "With a batch k times larger, 1 − β goes to k(1 − β)",
        "A limit of small steps: the linear form leaves [0, 1) for large k by arithmetic alone. "
        "`experiments.batch_size` compares it with training.",
    ),
    Untested(
        "a user's report on training a language model",
        "At batch size 1, β2 ≤ 0.995 is lost for good and 0.999 trains",
        "The model is not at hand; `experiments.finder` has such thresholds on tasks that are.",
    ),
    Untested(
        "arXiv:2602.01642",
        "Small batches want (0.9, 0.999), large ones a β1 near β2",
        "It is a recommendation for language models, without a number to measure here.",
    ),
)
"""What is not tested, and why."""
