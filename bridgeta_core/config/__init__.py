"""Settings of an experiment as typed dataclasses, and the YAML files that ship."""
