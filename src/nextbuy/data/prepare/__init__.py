"""Histories of a log that is larger than memory, made in files."""
