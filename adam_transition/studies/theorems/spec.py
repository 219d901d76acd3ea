"""The specification of a study of Theorem 3.1 or 3.3, each about one sampling scheme."""

from dataclasses import dataclass
from typing import Any

from adam_transition import adam
from adam_transition.problems import Member
from adam_transition.sampling import Sampling
from adam_transition.studies.runs import Runs, run_members
from adam_transition.studies.theorems.families import start_of


@dataclass(frozen=True)
class TheoremSpec:
    """What to compute."""

    sampling: Sampling
    num_components: tuple[int, ...]
    num_triples: int  # for each n and family
    num_seeds: int
    num_steps: int
    step_size: float
    num_samples: int  # of the random drift
    seed: int

    def run(self, members: list[Member], hyper: adam.Hyperparameters, **others: Any) -> Runs:
        """Runs the members with the settings of the study, some replaced by `others`."""
        settings: dict[str, Any] = {
            "num_steps": self.num_steps,
            "step_size": self.step_size,
            "num_seeds": self.num_seeds,
            "seed": self.seed,
            "starts": [start_of(member) for member in members],
        }
        return run_members(members, hyper, self.sampling, **{**settings, **others})
