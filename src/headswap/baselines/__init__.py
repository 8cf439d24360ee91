"""Baseline plugs: cheap models without a body. One file a baseline, one YAML in conf/baseline."""
