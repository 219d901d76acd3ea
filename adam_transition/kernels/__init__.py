"""Kernels: the simulation of many cells with their state near at hand."""

from adam_transition.kernels.table import Kernel, for_gpu, reason_against_gpu, simulate_table

__all__ = ["Kernel", "for_gpu", "reason_against_gpu", "simulate_table"]
