"""Machines: configuration, optimiser, devices, checkpoints, reports."""
