"""Data that many tests share: one small synthetic root per session, and the real keyframe where it is present."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

# No test asserts a time, also not through hypothesis: a busy machine would fail it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked cuda on a machine without a GPU."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Generator[None, None, None]:
    """At the very end say what was left out: skipped tests are easily overlooked among a thousand others."""
    yield
    skipped = [r for r in terminalreporter.getreports("skipped") if r.nodeid.startswith("test/ros/node/live/")]
    if skipped:
        reason = skipped[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(skipped)} ROS 2 tests skipped: {reason}", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    before = os.environ.get("BRIDGETA_CACHE")
    os.environ["BRIDGETA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["BRIDGETA_CACHE"]
    if before is not None:
        os.environ["BRIDGETA_CACHE"] = before


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nuScenes root, version v1.0-mini: one scene of 2 s (5 keyframes) with sweeps, images of 400x225.

    To read only: the processes of a parallel run share it.
    """
    from bridgeta_core.utils.files import hold_lock
    from bridgeta_synth import SynthSettings, write_dataset

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "synthetic"
    with hold_lock(folder / "lock", wait=True):
        if not (folder / "root").exists():
            settings = SynthSettings(scenes=1, seed=7, duration=2.0, version="v1.0-mini", image_scale=0.25)
            write_dataset(folder / "root", settings, progress=False)
    return folder / "root"


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The dataroot with one real nuScenes keyframe, which lies beside the repository and is not part of it."""
    root = Path(__file__).resolve().parents[2] / "shared" / "data" / "nuscenes_real"
    if not (root / "v1.0-mini" / "sample.json").is_file():
        pytest.skip(f"the real keyframe is not at {root}")
    return root
