"""Controls of generated text, from the command line to the energies that samplers follow."""
