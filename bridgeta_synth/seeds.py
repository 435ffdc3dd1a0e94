"""Tokens of table records: 32 hexadecimal digits that depend on the seed and the record alone."""

from __future__ import annotations

import hashlib

# The user's seed and the number of the split; a purpose and an index follow where random numbers are drawn.
Seed = tuple[int, ...]


def token(seed: Seed, *names: object) -> str:
    """Make the token of the record that `names` identify in the dataset of a seed."""
    return hashlib.blake2b("/".join(map(str, (*seed, *names))).encode(), digest_size=16).hexdigest()
