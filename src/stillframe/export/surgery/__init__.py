"""Changing programs that are already captured: each helper returns a new, verified program."""
