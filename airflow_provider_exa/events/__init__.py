"""An asset's events, and the record of the runs that it has reported."""
