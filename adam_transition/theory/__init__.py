"""The stationary drift, its sign boundary, and the paper's theorems as functions."""
