"""Samplers: steps, guidance and energies, over one sampling loop. No network, no I/O."""
