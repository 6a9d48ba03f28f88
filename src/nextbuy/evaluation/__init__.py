"""Score and compare models under a stated protocol."""
