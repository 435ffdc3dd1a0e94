"""Ways to teach the student with a frozen teacher: one file per method, all on the contract of `base`."""
