"""Strategy plugs: which weights move, how fast and when."""
