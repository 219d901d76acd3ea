"""The stationary drift and its boundary, and the theorems of the paper as functions."""
