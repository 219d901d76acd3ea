"""Networks: data sets, flax models, training of many at once, and outcomes of their curves."""
