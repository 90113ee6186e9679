"""Sections 4 and 5.1: one mean-field iteration, T of them, energies, other last steps, and the fused twins."""
