"""Training: set-up, loop, optimizer, logging, and the fitting of controls."""
