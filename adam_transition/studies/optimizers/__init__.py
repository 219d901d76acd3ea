"""The optimiser study: where other update rules than Adam's diverge on the counterexample."""
