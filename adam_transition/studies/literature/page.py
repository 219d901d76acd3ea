"""The scoreboard as a page in Markdown."""

from collections.abc import Sequence

from adam_transition.studies.literature.entries import UNTESTED
from adam_transition.sweeps.claims import Claim

HEAD = """# A scoreboard of the literature

What others have published about β1 and β2 of Adam and its relatives, in our words, and what the
instrument measures. Written by `python -m experiments.literature`, in a minute. Verdicts are
computed from measured ± error; *holds* and *fails* are for what we set beside a statement. A
number without an error is exact to rounding, or a count; the error of an exponent is its change to
the next scale.

| source | statement | stated | measured | verdict |
| --- | --- | --- | --- | --- |
"""


def page(claims: Sequence[Claim]) -> str:
    """Every row with its number and verdict, and what is not tested."""
    lines = [
        f"| {claim.reference} | {claim.statement} | {claim.expected} | {_number(claim)} "
        f"| **{claim.verdict}** |\n"
        for claim in claims
    ]
    rest = [f"| {row.source} | {row.statement} | {row.reason} |\n" for row in UNTESTED]
    return "".join(
        [
            HEAD,
            *lines,
            "\n## Not tested\n\n| source | statement | why not |\n| --- | --- | --- |\n",
            *rest,
        ]
    )


def _number(claim: Claim) -> str:
    error = f" ± {claim.uncertainty:.1g}" if claim.uncertainty else ""
    return f"{claim.measured:.6g}{error}"
