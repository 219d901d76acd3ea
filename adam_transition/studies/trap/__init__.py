"""The trap study: starts near the minimiser that stay where the drift points away."""
