"""A run's files: where they lie, the history of its metrics, its trajectories."""
