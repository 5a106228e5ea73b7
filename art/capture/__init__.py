"""Capture of what agents ask: requests in the context of a rollout become its trajectory."""
