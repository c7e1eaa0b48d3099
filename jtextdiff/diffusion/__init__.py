"""Mathematics of diffusion on arrays: processes, distributions, schedules, losses and bounds."""
