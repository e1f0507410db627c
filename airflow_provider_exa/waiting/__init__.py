"""Which run is waited for, what a poll shows of it, and how the wait ends."""
