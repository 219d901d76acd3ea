"""Finite sums, the problem class of the paper, and the constructions with their exact constants."""

from adam_transition.problems.constructions import (
    BoundedLinear,
    Counterexample,
    SlopeTable,
    counterexample,
    reddi,
    reddi_mod3,
    reddi_online,
    reddi_stochastic,
    sign_counterexample,
    slope_table,
)
from adam_transition.problems.finite_sum import (
    FiniteSum,
    as_arrays,
    component_gradients,
    from_loss,
    full_gradient,
    gap,
    mean_over_components,
    objective,
    stack,
)
from adam_transition.problems.members import (
    FAMILIES,
    CentredCounterexample,
    Family,
    Member,
    centred,
    least_d0,
    random_member,
)
from adam_transition.problems.problem_class import Number, ProblemClass
from adam_transition.problems.quadratics import (
    Quadratics,
    nonrealizable_quadratics,
    quadratics,
    realizable_quadratics,
)
from adam_transition.problems.registry import PROBLEMS, BuiltIn, built_in, default_n, parameters
from adam_transition.problems.regressions import Regression

__all__ = [
    "FAMILIES",
    "PROBLEMS",
    "BoundedLinear",
    "BuiltIn",
    "CentredCounterexample",
    "Counterexample",
    "Family",
    "FiniteSum",
    "Member",
    "Number",
    "ProblemClass",
    "Quadratics",
    "Regression",
    "SlopeTable",
    "as_arrays",
    "built_in",
    "centred",
    "component_gradients",
    "counterexample",
    "default_n",
    "from_loss",
    "full_gradient",
    "gap",
    "least_d0",
    "mean_over_components",
    "nonrealizable_quadratics",
    "objective",
    "parameters",
    "quadratics",
    "random_member",
    "realizable_quadratics",
    "reddi",
    "reddi_mod3",
    "reddi_online",
    "reddi_stochastic",
    "sign_counterexample",
    "slope_table",
    "stack",
]
