"""A bundle and the purchases since: what is asked, and what is answered."""
