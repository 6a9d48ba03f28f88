"""Looks for a better config of one model: choices on validation, one look at the test."""
