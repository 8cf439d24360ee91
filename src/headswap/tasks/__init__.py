"""Task plugs: what is learned. One file a task, one YAML in conf/task."""
