"""Runs a pure function over many cells, stores the results and judges claims.

Independent of Adam.
"""
