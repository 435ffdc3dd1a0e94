"""Ways to teach the student with a frozen teacher: the contract of `base`, and what the `methods` share."""
