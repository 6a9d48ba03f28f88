"""Keys, limits, deadlines: what stands before every route."""
