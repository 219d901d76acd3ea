"""What others have published about the betas of Adam and its relatives, measured."""
