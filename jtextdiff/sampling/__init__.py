"""Samplers: steps, guidance and energies over one sampling loop."""
