"""The files that stand beside exported graphs and run where this package is not installed."""
