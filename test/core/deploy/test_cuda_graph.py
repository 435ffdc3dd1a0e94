"""Functions recorded as CUDA graphs."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from bridgeta_core.deploy.cuda_graph import GraphCache

pytestmark = pytest.mark.cuda


def test_a_replay_computes_with_the_new_input() -> None:
    graphs, calls = GraphCache(2), 0

    def double(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 2 * x

    values = [torch.full((3,), float(i), device="cuda") for i in range(4)]
    results = [graphs("key", double, value).clone() for value in values]
    recorded = calls
    assert all(torch.equal(result, 2 * value) for result, value in zip(results, values, strict=True))
    graphs("key", double, values[0])
    assert calls == recorded


def test_each_key_has_its_own_function() -> None:
    graphs, x = GraphCache(1), torch.ones(3, device="cuda")
    for _ in range(2):  # the second time after the other key has taken its place
        assert float(graphs("add", lambda v: v + 1, x)[0]) == 2
        assert float(graphs("subtract", lambda v: v - 1, x)[0]) == 0


def test_what_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    graphs = GraphCache(2)
    with caplog.at_level(logging.WARNING):
        for value in (1.0, 2.0):
            x = torch.full((3,), value, device="cuda")
            # Reading a value on the CPU is not possible while recording.
            assert float(graphs("key", lambda v: v * float(v.sum()), x)[0]) == 3 * value * value
    assert len(caplog.records) == 1
    assert "CUDA graph" in caplog.text
