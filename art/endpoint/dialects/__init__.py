"""The HTTP APIs that the endpoint speaks, one module per dialect."""
