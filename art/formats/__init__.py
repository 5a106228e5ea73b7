"""Formats that two sides agree on: adapter folders, checkpoint paths, losses. Free of torch."""
