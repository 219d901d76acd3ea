"""Kernels: simulation of many cells with their state in registers or in the first-level cache."""

from adam_transition.kernels.table import (
    Kernel,
    fastest,
    for_gpu,
    reason_against,
    reason_against_gpu,
    simulate_table,
)

__all__ = ["Kernel", "fastest", "for_gpu", "reason_against", "reason_against_gpu", "simulate_table"]
