"""Plumbing that every part may use: files, versions, ports, keys."""
