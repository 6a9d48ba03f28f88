"""Training and scoring by several processes, perhaps on several machines, through Ray."""
