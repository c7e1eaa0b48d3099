"""Controls: from what a user asks for to an energy that a sampler can follow."""
