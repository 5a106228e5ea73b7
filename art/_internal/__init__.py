"""Plumbing that every part may use: files, versions, ports, keys. Imports no third-party module."""
