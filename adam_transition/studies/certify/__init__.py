"""The certificate study: the diagram and the boundary, proved in ball arithmetic."""
