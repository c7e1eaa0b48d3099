"""Networks: the only place that uses flax. Arrays in, arrays out."""
