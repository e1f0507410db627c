"""An asset's events: what was reported of a monitor's runs, and how that is kept."""
