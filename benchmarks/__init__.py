"""Benchmarks: what waiting costs with this package and with its peers; ``make bench`` runs them."""
