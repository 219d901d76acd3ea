"""One folder per study: the data it computes, its claims about them, and its figures."""
