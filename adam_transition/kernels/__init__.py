"""Kernels for GPUs: the simulation of many cells with their state in registers."""

from adam_transition.kernels.table import simulate_table

__all__ = ["simulate_table"]
