"""Ways to cut a log into what is learned from and what is asked."""
