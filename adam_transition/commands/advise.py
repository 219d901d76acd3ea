"""Which beta2 to use at another batch size: a recommendation, and three rules.

Example:
    python -m experiments.advise --batch_size=512 --beta1=0.9 --beta2=0.95 --new_batch_size=16

With recorded gradients of the new batch size, one mini-batch per row, also measures what they need:
    python -m experiments.advise --new_batch_size=16 --gradients=gradients.npy

With the results of experiments.batch_size, also tests the probe and the rules on its networks:
    python -m experiments.advise --results=out/batch_size
"""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner, batch_size

if TYPE_CHECKING:
    from adam_transition.advise import Advice, Setting
    from adam_transition.studies.advise.study import AdviseStudy

FLAGS = _flags.common_flags("advise")
_float = partial(_flags.define_float, flag_values=FLAGS)

_float("batch_size", 512, "Batch size of the setting that works, > 0, in samples or tokens.")
_float("beta1", 0.9, "beta1 of the setting that works, in [0, 1).")
_float("beta2", 0.999, "beta2 of the setting that works, in [0, 1).")
_float("new_batch_size", 16, "Batch size to move to, > 0, in the same unit.")
flags.DEFINE_integer(
    "samples",
    None,
    "Training samples: with them, what is enough for every problem of as many mini-batches.",
    2,
    flag_values=FLAGS,
)
_float("noise_ratio", 0.0, "D1/n of that class, 1 or more; 0: 2n, from which on some diverge.", 0.0)
_float("learning_rate", 0.0, "Learning rate of the setting that works, > 0; 0: not known.", 0.0)
_float("floor", 0.95, "Smallest beta2 of the clipped rule, in [0, 1).")
flags.DEFINE_string(
    "results", None, "Folder of a finished run of experiments.batch_size.", flag_values=FLAGS
)
flags.DEFINE_string(
    "gradients",
    None,
    "A .npy file with the gradient of one mini-batch of the new size per row, at fixed parameters.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_parameters",
    None,
    "Parameters of the whole model, if the columns of --gradients are some of them, at random.",
    1,
    flag_values=FLAGS,
)
_float("epsilon", 1e-8, "Epsilon of the optimiser, for --gradients, >= 0.", 0.0)
flags.DEFINE_integer(
    "probed_seeds", 3, "Networks probed per batch size, with --results.", 1, flag_values=FLAGS
)
_float("ceiling", 0.9999, "Largest beta2 of the clipped rule, in [0, 1).")


def main(values: dict[str, Any]) -> None:
    """Flags → table of rules, printed and in advise.json; with --results also the study."""
    from adam_transition.advise import Setting, advise, recommendation, recommended

    known = Setting(values["batch_size"], values["beta1"], values["beta2"])
    try:
        found = advise(
            known, values["new_batch_size"], floor=values["floor"], ceiling=values["ceiling"]
        )
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    study = None
    if values["results"]:
        _runner.check_installed(_networks.PACKAGES)
        study = parse_results(values)
    todo = recommendation(known, found, learning_rate=values["learning_rate"] or None)
    bound = _whole_class(values, recommended(found).setting.beta1)
    measured = None
    if values["gradients"]:
        target = recommended(found).setting
        measured = _measured(values, target._replace(beta2=max(target.beta2, known.beta2)))
    rows = [
        {
            "rule": one.rule,
            "holds": one.holds,
            "preserves": one.preserves,
            "limits": one.limits,
            # no numbers where the rule does not hold, as they would be followed all the same
            "beta1": one.setting.beta1 if one.holds else None,
            "beta2": one.setting.beta2 if one.holds else None,
            "learning_rate_factor": one.learning_rate_factor if one.holds else None,
            "epsilon_factor": one.epsilon_factor if one.holds else None,
            "half_life": one.half_life if one.holds else None,
            "bounded_steps": one.bounded_steps if one.holds else None,
            "steps": list(one.steps),
        }
        for one in found
    ]
    if values["json"] != "-":
        print(f"{todo}.")
        _print_rules(known, found)
        if bound is not None:
            print(f"\n{_enough(bound)}")
        if measured is not None:
            print(f"\n{_told(measured)}")
    summary: dict[str, Any] = {"rows": rows, "recommendation": todo}
    if bound is not None:
        summary["whole_class"] = bound
    if measured is not None:
        summary["gradients"] = measured
    if study is None:
        _outputs.write_summary("advise", values, [], [], **summary)
        return

    _outputs.run_study(values, study, summary=summary)


def _print_rules(known: "Setting", found: "list[Advice]") -> None:
    """The table of rules, and what each says."""
    from adam_transition.advise import half_life

    before = half_life(known.beta2, known.batch_size)
    print(
        f"\nbatch size {known.batch_size:g} → {found[0].setting.batch_size:g}; half-life in samples"
    )
    print(f"{'rule':10} {'β1':>9} {'β2':>10} {'half-life':>10} {'β1 < √β2':>9}  lr ×    ε ×")
    print(f"{'(known)':10} {known.beta1:9.6g} {known.beta2:10.7g} {before:10.4g}")
    for one in found:
        if not one.holds:
            print(f"{one.rule:10} {'–':>9} {'–':>10}  does not hold here")
            continue
        print(
            f"{one.rule:10} {one.setting.beta1:9.6g} {one.setting.beta2:10.7g} "
            f"{one.half_life:10.4g} {'yes' if one.bounded_steps else 'no':>9}  "
            f"{one.learning_rate_factor:<6.3g} {one.epsilon_factor:.3g}"
        )
    for one in found:
        print(f"{one.rule}: {'; '.join(one.steps)}.")
        print(f"  Keeps {one.preserves}." + (f" Limits: {one.limits}." if one.holds else ""))


def _whole_class(values: dict[str, Any], beta1: float) -> dict[str, Any] | None:
    """What is enough for every problem with as many mini-batches; None without --samples."""
    from adam_transition.advise.every_problem import whole_class

    if values["samples"] is None:
        if values["noise_ratio"]:
            raise ValueError(f"--noise_ratio={values['noise_ratio']:g}: needs --samples as well")
        return None
    num = int(values["samples"] // values["new_batch_size"])
    if num < 2:
        raise ValueError(
            f"--samples={values['samples']}: fewer than two batches of {values['new_batch_size']:g}"
        )
    try:
        found = whole_class(num, beta1, noise_ratio=values["noise_ratio"] or None)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    return {**found._asdict(), "counterexample": _finite(found.counterexample)}


def _enough(bound: dict[str, Any]) -> str:
    """The class in words."""
    lines = [
        f"Every one-dimensional problem with n = {bound['num_components']} mini-batches and noise "
        f"ratio D1/n ≤ {bound['noise_ratio']:g}: β2 ≥ {1 - bound['enough']:.6g} is enough, for any "
        "β1 (proved, batches with replacement)."
    ]
    if bound["counterexample"] is not None:
        lines.append(
            "The worst problem known of that n, of a far larger noise ratio, needs "
            f"{1 - bound['counterexample']:.6g}."
        )
    lines.append(
        "The theorems' sufficient bound, 1 − (1 − β1^n)/n^3.5 = "
        f"{1 - bound['theorem']:.9g} if its unknown constant were 1, is no advice."
    )
    return "\n".join(lines)


def _measured(values: dict[str, Any], recommended: "Setting") -> dict[str, Any]:
    """What the recorded gradients say, as the summary has it."""
    import numpy as np

    from adam_transition.advise import GradientTable, is_large_enough, needed_beta2
    from adam_transition.sampling import stream_key

    path = Path(values["gradients"])
    try:
        if path.suffix != ".npy":
            raise ValueError("must be a .npy file, as numpy.save writes it")
        rows = np.load(path, allow_pickle=False)
        table = GradientTable.from_rows(rows, num_parameters=values["num_parameters"])
        key, epsilon = stream_key(values["seed"]), values["epsilon"]
        beta1, beta2 = recommended.beta1, recommended.beta2
        needed = needed_beta2(table, key, beta1=beta1, epsilon=epsilon)
        answer = is_large_enough(table, key, beta1=beta1, beta2=beta2, epsilon=epsilon)
    except FileNotFoundError:
        raise ValueError(f"--gradients={path}: no such file") from None
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"--gradients={path}: {str(error).splitlines()[0]}") from None
    interval = table.noise_ratio_interval
    return {
        "num_batches": len(table.rows),
        "noise_ratio": _finite(float(table.noise_ratio)),
        "noise_ratio_interval": [_finite(float(np.asarray(end))) for end in interval],
        "beta1": beta1,
        "one_minus_beta2": _finite(needed.one_minus_beta2),
        "low": needed.low,
        "high": needed.high,
        "reason": needed.reason,
        "recommended_beta2": beta2,
        "verdict": answer.verdict,
        "verdict_reason": answer.reason,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _told(measured: dict[str, Any]) -> str:
    """The measurement in words."""
    q, low, high = (measured[name] for name in ("one_minus_beta2", "low", "high"))
    needs = (
        "no β2 of the search is large enough"
        if q is None
        else f"β2 ≥ {1 - q:.6g} (95 %: {1 - high:.6g} to {1 - low:.6g})"
    )
    count, beta1, beta2 = (measured[name] for name in ("num_batches", "beta1", "recommended_beta2"))
    return (
        f"From {count} recorded gradients, at β1 = {beta1:g}: {needs}. "
        f"Limit: {measured['reason']}.\n"
        f"The recommended β2 = {beta2:.6g}: {measured['verdict']}: {measured['verdict_reason']}.\n"
        "This is the state of these parameters; a small β2 does its harm early in training and at "
        "large steps."
    )


def parse_results(values: dict[str, Any]) -> "AdviseStudy":
    """The study of the networks of a finished experiments.batch_size.

    Raises:
      ValueError: naming the flag, its value and the problem.
    """
    from adam_transition.studies.advise.study import AdviseStudy
    from adam_transition.sweeps.store import Store, StoreError

    path = Path(values["results"]) / "batch_size.zarr"
    try:
        if not path.exists():
            raise ValueError(f"no {path.name} in it; run experiments.batch_size first")
        trained = Store(path).load()
        if "exponent" not in trained or trained.attrs.get("experiment") != "batch_size":
            raise ValueError(f"{path.name} is not finished; run experiments.batch_size again")
        study = batch_size.parse(json.loads(trained.attrs["flags"]))
        found = AdviseStudy(trained, study, min(values["probed_seeds"], len(study.grid.seeds)))
        if not found.measured.sizes["batch_size"]:
            raise ValueError("no batch size has a threshold")
    except (StoreError, ValueError) as error:
        raise ValueError(f"--results={values['results']}: {error}") from None
    return found


COMMAND = _runner.Command("advise", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
