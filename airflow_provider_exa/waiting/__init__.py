"""Waits for runs: selection, polls, progress and outcome."""
