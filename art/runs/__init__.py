"""Files of a run: their paths, metrics, trajectories and state; logging and progress."""
