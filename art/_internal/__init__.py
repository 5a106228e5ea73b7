"""Plumbing that every part may use: files, ports, keys, tasks of the event loop."""
