"""What to set beta2 and beta1 to at another batch size: three rules, and what to do about them.

Example:
    python -m experiments.advise --batch_size=512 --beta1=0.9 --beta2=0.95 --new_batch_size=16
"""

import sys
from functools import partial
from typing import Any

from absl import flags

from experiments import common

FLAGS = common.common_flags("advise")
_float = partial(flags.DEFINE_float, flag_values=FLAGS)

_float("batch_size", 512, "Batch size of the setting that works, in samples or in tokens.")
_float("beta1", 0.9, "beta1 of the setting that works, in [0, 1).")
_float("beta2", 0.999, "beta2 of the setting that works, in [0, 1).")
_float("new_batch_size", 16, "Batch size to move to, in the same unit.")
_float("floor", 0.95, "Least beta2 of the clipped rule.")
_float("ceiling", 0.9999, "Greatest beta2 of the clipped rule.")


def main(values: dict[str, Any]) -> None:
    """Flags → the table of rules, printed and in advise.json."""
    from adam_transition.advise import Setting, advise, half_life

    known = Setting(values["batch_size"], values["beta1"], values["beta2"])
    try:
        found = advise(
            known, values["new_batch_size"], floor=values["floor"], ceiling=values["ceiling"]
        )
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    rows = [
        {
            "rule": one.rule,
            "beta1": one.setting.beta1,
            "beta2": one.setting.beta2,
            "learning_rate_factor": one.learning_rate_factor,
            "epsilon_factor": one.epsilon_factor,
            "half_life": one.half_life,
            "bounded_steps": one.bounded_steps,
            "steps": list(one.steps),
        }
        for one in found
    ]
    if values["json"] != "-":
        before = half_life(known.beta2, known.batch_size)
        print(f"batch size {known.batch_size:g} → {values['new_batch_size']:g}")
        print(f"{'rule':10} {'β1':>9} {'β2':>10} {'half-life':>10} {'β1 < √β2':>9}  lr ×    ε ×")
        print(f"{'(known)':10} {known.beta1:9.6g} {known.beta2:10.7g} {before:10.4g}")
        for one in found:
            print(
                f"{one.rule:10} {one.setting.beta1:9.6g} {one.setting.beta2:10.7g} "
                f"{one.half_life:10.4g} {'yes' if one.bounded_steps else 'no':>9}  "
                f"{one.learning_rate_factor:<6.3g} {one.epsilon_factor:.3g}"
            )
        for one in found:
            print(f"{one.rule}: {'; '.join(one.steps)}.")
    common.write_summary("advise", values, [], [], rows=rows)


if __name__ == "__main__":
    sys.exit(common.run("advise", __doc__, FLAGS, main))
