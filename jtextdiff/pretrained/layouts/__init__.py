"""Published layouts: names and shapes of tensors, what config.json means, and how tensors become our parameters."""
