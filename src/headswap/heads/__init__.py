"""Head plugs: what a head starts as."""
