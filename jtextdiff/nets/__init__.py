"""Networks: flax lives here and nowhere else; arrays in, arrays out."""
