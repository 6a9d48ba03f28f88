"""How good predictions are, as plain functions of arrays."""
