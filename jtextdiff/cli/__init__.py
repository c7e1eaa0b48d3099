"""The command line: parsing, errors, output and exit statuses. Imports no jax."""
