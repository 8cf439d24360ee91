"""Metric plugs, each an evaluate module that works offline; one file a kind of problem."""
