"""Checks of this repository and tables made from it: for contributors, in no wheel."""
