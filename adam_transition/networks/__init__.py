"""Networks: data sets, flax models, training of many at once, and what their curves say."""
