"""The page for people: rendered here, no script from elsewhere."""
