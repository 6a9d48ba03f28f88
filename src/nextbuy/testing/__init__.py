"""Contract tests that every model must pass; public, so that outsiders can use them."""
