"""The class-threshold study: which β2 is enough for a class, proved and found."""
