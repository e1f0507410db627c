"""Exa's requests and answers and their meaning, without I/O."""
