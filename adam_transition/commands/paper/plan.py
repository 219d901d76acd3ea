"""The plan of `experiments.paper`: the paper's statements, and the experiments that test them."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

Scale = Literal["smoke", "laptop", "gpu"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Run:
    """One experiment of the page; `name` also names its flagfile and folder."""

    name: str
    title: str
    experiment: str = ""  # default: the name
    captions: dict[str, str] = field(default_factory=dict)  # of the figures shown, by file name
    chosen: tuple[str, ...] = ()  # choices that the paper leaves open, and departures from it
    gpu_flagfile: str = ""  # default: the flagfile of the laptop

    @property
    def command(self) -> str:
        """The name of the command to run."""
        return self.experiment or self.name

    def flagfile_name(self, scale: Scale) -> str:
        """The name of the flagfile at a scale."""
        return {"smoke": f"smoke/{self.name}", "gpu": self.gpu_flagfile}.get(scale) or self.name

    def how(self, scale: Scale) -> str:
        """The command line, in a checkout."""
        flagfile = f"experiments/flagfiles/{self.flagfile_name(scale)}.flags"
        return f"python -m experiments.{self.command} --flagfile={flagfile}"


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, with the claims and figures that test it."""

    title: str
    where: str
    text: str
    claims: tuple[str, ...]  # patterns, as run:id
    figures: tuple[str, ...] = ()  # as run/figure

    @property
    def anchor(self) -> str:
        """The anchor of its section on the page."""
        return re.sub("[^a-z0-9]+", "-", self.title.lower())


RUNS = (
    Run(
        "phase",
        "The phase diagram",
        captions={
            "phase": "Distance to the minimiser over (β1, β2). The line is the boundary D = 0.",
            "trajectories": "Trajectories at selected (β1, β2).",
        },
        chosen=(
            "η0 = 0.1 and x0 = 1: for its figure the paper states only the 50 000 iterations.",
            "Three sampling schemes and four values of n; the paper's figure has n = 10 and 50.",
        ),
    ),
    Run(
        "published",
        "The authors' own heat map",
        captions={
            "published": "Figure 1 (a) of the NeurIPS version, digitised; ours at the setting that "
            "comes nearest; and what other settings would have given.",
        },
        chosen=(
            "The picture does not say its settings: every combination of those listed is tried.",
        ),
    ),
    Run(
        "phase_reddi",
        "The example of Reddi et al.",
        experiment="phase",
        captions={
            "phase": "Distance to the minimiser −1. A distance of 2 is the wrong end, +1.",
            "trajectories": "Trajectories at selected (β1, β2).",
        },
        chosen=("Runs start at 0, with η0 = 0.1 and diminishing steps.",),
    ),
    Run(
        "divergence",
        "The divergence theorem",
        captions={
            "divergence_regions": "The region in which Adam is proven to diverge for every order, "
            "and the exact regions.",
            "divergence_areas": "Area of the region of divergence against n.",
            "divergence_trajectories": "Trajectories at one (β1, β2), from starts on both sides.",
            "divergence_d1": "The smallest D1 at which Adam and Sign-SGD diverge.",
        },
        chosen=(
            "The paper's analytic conditions are in its appendix, which was not available to us. "
            "The proven region is ours.",
        ),
    ),
    Run(
        "boundary",
        "The exact boundary",
        captions={
            "boundary": "The zero set of the stationary drift.",
            "boundary_scaling": "The threshold against n and against D1.",
        },
        chosen=("The paper bounds the boundary from both sides but does not compute it.",),
    ),
    Run(
        "class_threshold",
        "The threshold of the class",
        captions={
            "class_threshold": "The β2 that is enough for every problem of the class, in three "
            "orders, and the hardest problems.",
        },
    ),
    Run(
        "certify",
        "The proved transition",
        captions={
            "certify": "The square, proved in rectangles by ball arithmetic, and the boundary."
        },
    ),
    Run(
        "trap",
        "The trap near the minimiser",
        captions={
            "trap": "Where D > 0 and a start near x* stays: the largest such distance, in steps."
        },
    ),
    Run(
        "optimizers",
        "Other update rules",
        captions={
            "optimizers": "Where each optimiser diverges on the counterexample.",
            "optimizers_thresholds": "The largest β2 at which each diverges, and its default.",
        },
    ),
    *(
        Run(
            f"theorem_3_{part}",
            f"Theorem 3.{part}: {scheme}",
            captions={
                f"theorem_3_{part}_rate": "The left-hand side of the theorem against T.",
                f"theorem_3_{part}_neighbourhood": "The neighbourhood against 1 − β2, and the "
                "window of good β2 at finite T.",
                f"theorem_3_{part}_conditions": "The left-hand side across β1 = √β2 and in many "
                "dimensions, and the threshold against n.",
                f"theorem_3_{part}_reddi": "Iterates on the example of Reddi et al.",
            },
            chosen=(
                "The constants hidden in O(·) were not available to us: exponents are measured.",
            ),
            gpu_flagfile=f"theorem_3_{part}_gpu",
        )
        for part, scheme in (("1", "with replacement"), ("3", "random shuffling"))
    ),
    Run(
        "concentration",
        "The concentration lemma and the direction of the update",
        captions={
            "concentration": "How often 1/√v leaves its band, and how often the lemma allows it.",
            "direction": "The direction of the expected update against β2.",
        },
        chosen=("The lemma is tested where its probability and its inner bracket are positive.",),
    ),
    Run(
        "networks",
        "Training loss over (β1, β2)",
        captions={
            "networks": "Training loss over (β1, β2).",
            "networks_curves": "Loss curves at selected (β1, β2).",
            "networks_spikes": "Number of loss spikes over (β1, β2).",
        },
        chosen=(
            "Handwritten digits of 8 × 8 pixels, one hidden layer of width 16, batch sizes 1 and "
            "16: the settings of the paper's sweeps were not available to us.",
        ),
    ),
    Run(
        "batch_size",
        "Batch size and β2",
        captions={
            "batch_size": "Loss over batch size and β2.",
            "batch_size_threshold": "The threshold β2* against the batch size.",
        },
        chosen=(
            "MNIST-1D instead of MNIST, which has to be downloaded; β1 = 0.9 as in the paper.",
        ),
        gpu_flagfile="batch_size_mnist_gpu",
    ),
    Run(
        "finder",
        "The threshold on seven tasks, and the finder",
        captions={
            "finder": "What `find_beta2` finds for a quarter of the cost of a sweep, with its 95 % "
            "intervals, against other seeds trained to the end. Grey: a factor of 2.5.",
            "finder_laws": "1 − β2* against the batch size; dotted: the best 1 − β2 of a language "
            "model, from a public table.",
        },
        chosen=(
            "MLPs, small convolutional networks and a decoder on real images and text, as far as "
            "their data are on the machine; β1 = 0.9.",
        ),
    ),
    Run(
        "advise",
        "Advice: the probe compared with training",
        captions={
            "advise": "The threshold of training, the probe and the rules; the progress that the "
            "probe measures."
        },
        chosen=("The paper's advice is qualitative; the probe and its thresholds are ours.",),
    ),
)

_THEOREM = ("rate_*", "neighbourhood_*", "window*", "beta1_line", "limit_point*")

STATEMENTS = (
    Statement(
        "Convergence, with replacement",
        "Theorem 3.1",
        "If β1 < √β2 and β2 ≥ 1 − O((1 − β1ⁿ)/n⁵), Adam with η0/√k converges to critical points "
        "at the rate log T/((1 − β2)√T), up to a neighbourhood of size (1 − β2)√D0.",
        tuple(f"theorem_3_1:{claim}" for claim in (*_THEOREM, "violated_threshold", "schemes")),
        figures=(
            "theorem_3_1/theorem_3_1_rate",
            "theorem_3_1/theorem_3_1_neighbourhood",
            "theorem_3_1/theorem_3_1_conditions",
        ),
    ),
    Statement(
        "Convergence, random shuffling",
        "Theorem 3.3",
        "A bound of the same kind holds for the iterate at the start of an epoch.",
        tuple(f"theorem_3_3:{claim}" for claim in (*_THEOREM, "violated_threshold", "schemes")),
        figures=(
            "theorem_3_3/theorem_3_3_rate",
            "theorem_3_3/theorem_3_3_neighbourhood",
            "theorem_3_3/theorem_3_3_conditions",
        ),
    ),
    Statement(
        "Divergence",
        "Divergence theorem",
        "For n ≥ 3 and D1 ≥ 2n² there is an f on which Adam goes to infinity for every (β1, β2) in "
        "a region that grows with n and fills [0, 1)² as n → ∞.",
        (
            "divergence:proven_*",
            "divergence:region_*",
            "divergence:diverges_*",
            "divergence:rate_*",
            "divergence:cyclic_*",
        ),
        figures=(
            "divergence/divergence_regions",
            "divergence/divergence_areas",
            "divergence/divergence_trajectories",
        ),
    ),
    Statement(
        "Sign-SGD",
        "Divergence theorem, β1 = β2 = 0",
        "Sign-SGD diverges too.",
        ("phase:sign_sgd_diverges",),
    ),
    Statement(
        "Phase transition",
        "Theorems 3.1 and 3.3 with the divergence theorem; Figure 4",
        "On a fixed problem there is a transition from divergence to convergence in the (β1, β2) "
        "plane; its boundary depends on the problem class and on n.",
        ("phase:*", "boundary:*", "class_threshold:*", "certify:*", "trap:*"),
        figures=(
            "phase/phase",
            "phase/trajectories",
            "boundary/boundary",
            "boundary/boundary_scaling",
            "class_threshold/class_threshold",
            "certify/certify",
            "trap/trap",
        ),
    ),
    Statement(
        "The authors' heat map",
        "Figure 1 (a) of the NeurIPS version",
        "The distance to the minimiser of the counterexample over (β1, β2), as printed.",
        ("published:*",),
        figures=("published/published",),
    ),
    Statement(
        "Concentration",
        "Concentration lemma",
        "Except with exponentially small probability, 1/√v stays in a band around 1/√E v that "
        "closes as β2 → 1; the expectation is given everything before the last draw.",
        ("concentration:lemma",),
        figures=("concentration/concentration",),
    ),
    Statement(
        "Direction of the update",
        "Figure 5",
        "For large β2 the expected update is close to the direction of the gradient; as β2 falls "
        "it turns away.",
        ("concentration:direction*",),
        figures=("concentration/direction",),
    ),
    Statement(
        "The counterexample",
        "Section 3",
        "With a = 1/(n − 1)² the counterexample has D1 = 2n².",
        ("divergence:paper_*",),
    ),
    Statement(
        "Reddi et al.'s example",
        "Figure 2",
        "In cyclic order, in random order and with diminishing steps, Adam is stuck at +1.",
        ("theorem_3_?:reddi_*", "phase_reddi:*"),
        figures=(
            "phase_reddi/phase",
            "phase_reddi/trajectories",
            "theorem_3_1/theorem_3_1_reddi",
            "theorem_3_3/theorem_3_3_reddi",
        ),
    ),
    Statement(
        "Networks over the plane",
        "Figure 1",
        "Training loss is bad at small β2 and good at large β2, for almost any β1 < √β2.",
        ("networks:*",),
        figures=(
            "networks/networks",
            "networks/networks_curves",
            "networks/networks_spikes",
        ),
    ),
    Statement(
        "Batch size",
        "Figure 3",
        "The smaller the batch, the larger the β2 needed.",
        (
            "batch_size:*",
            "finder:batch_exponent_*",
            "finder:rate_exponent_*",
            "finder:half_life_*",
            "finder:noise_scale_*",
        ),
        figures=(
            "batch_size/batch_size",
            "batch_size/batch_size_threshold",
            "finder/finder_laws",
        ),
    ),
    Statement(
        "Smaller D1",
        "an open question of the paper",
        "Are there counterexamples with n < D1 < 2n²?",
        ("divergence:*_small_d1*",),
        figures=("divergence/divergence_d1",),
    ),
    Statement(
        "Other update rules",
        "beyond the paper",
        "Which relatives of Adam diverge on the counterexample, and which never do.",
        ("optimizers:*",),
        figures=("optimizers/optimizers", "optimizers/optimizers_thresholds"),
    ),
    Statement(
        "Advice",
        "Section 7",
        "If Adam does not work well, raise β2, and the more so the smaller the batch.",
        ("advise:*", "finder:*"),
        figures=("advise/advise", "finder/finder"),
    ),
)
