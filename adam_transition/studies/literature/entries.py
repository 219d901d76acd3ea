"""The scoreboard's rows: statements in our words with their sources, and what tests them."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

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

ENTRIES = (
    Entry(
        "reddi_099",
        _REDDI,
        "Adam with (0.9, 0.99) goes to the wrong end on slope 1010 every 101st step, else −10 "
        "(β2 up to which it does, in cyclic order)",
        measurements.reddi_threshold,
        at_least=0.99,
    ),
    Entry(
        "common_0999",
        "common advice, after the default of arXiv:1412.6980",
        "The default β2 = 0.999 is enough where 0.99 is not (on the same example, β2 up to which "
        "Adam with β1 = 0.9 diverges)",
        measurements.reddi_threshold,
        at_most=0.999,
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
        _SHI,
        "The same with two large slopes in a row in ten steps: what that number belongs to (the "
        "exact threshold)",
        partial(measurements.shi_threshold, (0, 1)),
        at_least=0.63,
        at_most=0.64,
    ),
    Entry(
        "shi_diagram",
        _SHI,
        "Their phase diagram of 10⁶ steps over C and β2 has the boundary D = 0 (share of the cells "
        "on whose side their criterion and the drift agree)",
        measurements.shi_diagram,
        at_least=0.99,
        ours=True,
    ),
    Entry(
        "symmetric_data",
        _SYMMETRY,
        "On quadratics with symmetric data Adam comes to the minimiser (distance of its limit from "
        "it, with replacement, β2 = 0.5)",
        measurements.symmetric_bias,
        at_most=1e-12,
    ),
    Entry(
        "symmetry_rate",
        _SYMMETRY,
        "On other data its limit is off by a power 1 of 1 − β2 (exponent, with replacement)",
        partial(measurements.bias_exponent, "with_replacement"),
        equals=1.0,
        tolerance=0.05,
    ),
    Entry(
        "symmetry_rate_shuffled",
        "beside arXiv:2511.06675",
        "So it is under random shuffling (exponent)",
        partial(measurements.bias_exponent, "random_shuffling"),
        equals=1.0,
        tolerance=0.05,
        ours=True,
    ),
    Entry(
        "symmetry_rate_cyclic",
        "beside arXiv:2511.06675",
        "So it is in cyclic order (exponent)",
        partial(measurements.bias_exponent, "cyclic"),
        equals=1.0,
        tolerance=0.05,
        ours=True,
    ),
    Entry(
        "symmetry_batch",
        _SYMMETRY,
        "And off by a power 1 of 1/B, B being the size of a mini-batch (exponent)",
        measurements.bias_exponent_of_batch,
        equals=1.0,
        tolerance=0.05,
    ),
    *(
        Entry(
            f"stable_regime_{k}",
            _REGIMES,
            f"On x^{k}/{k} Adam descends without crossing the minimiser exactly if "
            f"β1 < β2^({k}/{2 * (k - 2)}) (share of the cells of a grid)",
            partial(measurements.stable_share, k),
            at_least=0.99,
        )
        for k in (4, 6)
    ),
    Entry(
        "adopt_any_beta2",
        "Taniguchi et al. 2024, arXiv:2411.02853",
        "ADOPT, without its clip, converges with any β2 (the largest β2 that diverges on the "
        "counterexample with n = 20, a = 1, cyclic; 0 if there is none)",
        measurements.adopt_threshold,
        at_most=0.0,
    ),
    Entry(
        "muon_diverges",
        "arXiv:2605.08980",
        "Muon does not converge on convex problems: on diagonal ones it is sign momentum, at its "
        "default β = 0.95 (β up to which that diverges for n = 50, a = 1, cyclic)",
        measurements.sign_momentum_threshold,
        at_least=0.95,
    ),
    Entry(
        "equal_betas",
        "beside arXiv:2601.21739 and Orvieto & Gower 2025",
        "Equal betas are no protection in themselves: β1 = β2 = 0.95, sound for language models, "
        "diverges on the counterexample with n = 20, a = 1, with replacement (the largest β1 = β2 "
        "that does)",
        measurements.equal_betas_threshold,
        at_least=0.95,
        ours=True,
    ),
    Entry(
        "half_life",
        "Marek et al. 2025",
        "β2 should keep its half-life in samples, so 1 − β2 goes like B (exponent of the exact "
        "1 − β2* in B, counterexample with n = 20, a = 1)",
        measurements.threshold_exponent_of_batch,
        equals=1.0,
        tolerance=0.05,
    ),
    Entry(
        "sde_linear",
        "beside Malladi et al. 2022",
        "The linear form of the SDE rule, 1 − β1' = k(1 − β1), is for small changes only (β1' it "
        "gives from 0.9 at k = 64)",
        measurements.linear_rule_beta1,
        at_most=0.0,
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
        "a public report on a language model",
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
