"""Batches, the one training loop, its engines, and checkpoints that survive a kill."""
