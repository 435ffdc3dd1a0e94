"""Settings of an experiment and of its distillation, as typed dataclasses, and the YAML files that ship."""
