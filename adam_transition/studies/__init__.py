"""One folder a study: the data it computes, what it claims of them, how they are drawn."""
