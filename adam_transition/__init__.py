"""Where plain Adam converges and where it diverges, in the (β1, β2) plane."""
