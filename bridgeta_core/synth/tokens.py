"""Identifiers of table records: 32 hexadecimal digits that depend on the seed and the record alone."""

from __future__ import annotations

import hashlib


def token(seed: int, *names: object) -> str:
    """The token of the record that `names` identify in the data set of a seed."""
    return hashlib.blake2b("/".join(map(str, (seed, *names))).encode(), digest_size=16).hexdigest()
