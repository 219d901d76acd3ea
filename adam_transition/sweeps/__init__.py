"""Running a pure function over many cells, keeping the results, and judging claims. Knows nothing of Adam."""
