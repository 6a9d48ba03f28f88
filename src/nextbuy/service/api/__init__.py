"""Routes for programs, described by OpenAPI."""
