"""The authors' own heat map of the counterexample, beside ours at many settings."""
