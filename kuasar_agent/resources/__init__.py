"""Resources of a container: its cgroup, limits, usage and OOM kills."""
