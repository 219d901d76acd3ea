"""Which beta2 to use at another batch size: a recommendation, and three rules.

Example:
    python -m experiments.advise --batch_size=512 --beta1=0.9 --beta2=0.95 --new_batch_size=16

With the results of experiments.batch_size, also tests the probe and the rules on its networks:
    python -m experiments.advise --results=out/batch_size
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner, batch_size

if TYPE_CHECKING:
    from adam_transition.studies.advise.study import AdviseStudy

FLAGS = _flags.common_flags("advise")
_float = partial(_flags.define_float, flag_values=FLAGS)

_float("batch_size", 512, "Batch size of the setting that works, > 0, in samples or tokens.")
_float("beta1", 0.9, "beta1 of the setting that works, in [0, 1).")
_float("beta2", 0.999, "beta2 of the setting that works, in [0, 1).")
_float("new_batch_size", 16, "Batch size to move to, > 0, in the same unit.")
_float("floor", 0.95, "Smallest beta2 of the clipped rule, in [0, 1).")
flags.DEFINE_string(
    "results", None, "Folder of a finished run of experiments.batch_size.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "probed_seeds", 3, "Networks probed per batch size, with --results.", 1, flag_values=FLAGS
)
_float("ceiling", 0.9999, "Largest beta2 of the clipped rule, in [0, 1).")


def main(values: dict[str, Any]) -> None:
    """Flags → table of rules, printed and in advise.json; with --results also the study."""
    from adam_transition.advise import Setting, advise, half_life, recommendation

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
    todo = recommendation(known, found)
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
        before = half_life(known.beta2, known.batch_size)
        print(f"{todo}.")
        print(
            f"\nbatch size {known.batch_size:g} → {values['new_batch_size']:g}; "
            "half-life in samples"
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
    if study is None:
        _outputs.write_summary("advise", values, [], [], rows=rows, recommendation=todo)
        return

    _outputs.run_study(values, study, summary={"rows": rows, "recommendation": todo})


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
