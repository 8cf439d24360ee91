"""Where curves go besides a run's own files."""
