"""Errors, files, settings and facts of the machine."""
