"""Kernels: the simulation of many cells with their state near at hand."""

from adam_transition.kernels.table import Kernel, simulate_table

__all__ = ["Kernel", "simulate_table"]
