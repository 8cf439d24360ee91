"""Metric plugs, each an evaluate module that works offline."""
