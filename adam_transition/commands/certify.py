"""Proves the diagram of the counterexample: a certificate that others can check without us.

Ball arithmetic (python-flint) encloses the stationary drift: in cyclic order over rectangles that
cover the (beta1, beta2) square, and in all orders at both ends of intervals around each sign change
in beta2. tools/check_certificate.py proves the certificate again. Example:

    python -m experiments.certify --n=20 --json=-
    python tools/check_certificate.py out/certify/certificate.json
"""

import json
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.certify.study import CertifyStudy

FLAGS = _flags.common_flags("certify")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_GREATEST_N = 100
_MOST_DIGITS = 60
_MOST_EDGES = 100

_integer("n", 20, "Number of components.", 3, _GREATEST_N)
flags.DEFINE_string(
    "a", "", "Slope a > 0 of the counterexample, exact: 1/361; default: 1/(n-1)^2.",
    flag_values=FLAGS,
)  # fmt: skip
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes whose sign changes are enclosed; rectangles are of cyclic order.",
)
_list("beta1", "0,0.5,0.9", "Values of beta1 in [0, 1) at which they are, exact.")
_integer("depth", 12, "Rectangles are at least 2^-depth wide.", 4, 16)


def main(values: dict[str, Any]) -> None:
    """Flags → proofs → data set, certificate, figure, claims."""
    study = parse(values)
    path = Path(values["out"]) / "certificate.json"

    def certificate(dataset: Any) -> dict[Path, str]:
        from adam_transition.studies.certify import data

        return {path: json.dumps(data.certificate(dataset), indent=1) + "\n"}

    _outputs.run_study(values, study, summary={"certificate": str(path)}, texts=certificate)


def parse(values: dict[str, Any]) -> "CertifyStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.certify.study import CertifyStudy

    _flags.check_choices("sampling", values["sampling"], _flags.SCHEMES)
    n = values["n"]
    a = _flags.parse_slope([n], values["a"]) or Fraction(1, (n - 1) ** 2)
    beta1 = _flags.parse_list("beta1", values["beta1"], Fraction)
    for one in (a, *beta1):
        if max(len(str(one.numerator)), len(str(one.denominator))) > _MOST_DIGITS:
            raise ValueError(f"--a and --beta1: fractions of at most {_MOST_DIGITS} digits")
    floats = [float(one) for one in beta1]
    if not all(0 <= one < 1 for one in floats) or len(set(floats)) < len(floats):
        raise ValueError(
            f"--beta1={','.join(values['beta1'])}: values must lie in [0, 1), and differ as doubles"
        )
    count = len(beta1) * len(values["sampling"])
    _flags.check_work(values, ("sampling", "beta1"), "boundaries", count, _MOST_EDGES)
    return CertifyStudy(
        n=n,
        a=a,
        samplings=tuple(values["sampling"]),
        beta1=tuple(sorted(beta1)),
        depth=values["depth"],
    )


COMMAND = _runner.Command("certify", __doc__, FLAGS, main, needs=("flint",), extra="certify")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
