"""Settings: what is impossible is refused by name before anything happens."""

from __future__ import annotations

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.settings import SynthSettings


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"scenes": 0}, "scenes"),
        ({"scenes": 10_000}, "scenes"),
        ({"seed": -1}, "seed"),
        ({"split": "trainval"}, "split is 'trainval', it must be train, val or test"),
        ({"image_scale": 0.0}, "image_scale"),
        ({"image_scale": 1.5}, "image_scale"),
        ({"image_scale": float("nan")}, "image_scale"),
        ({"duration": -1.0}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"keyframe_gap": 0.0}, "keyframe_gap"),
        ({"keyframe_gap": 0.7}, "keyframe_gap is 0.7 s, it must be 0.5 to 60 in steps of 0.5"),
        ({"keyframe_gap": float("nan")}, "keyframe_gap"),
        (
            {"keyframe_gap": 8.0, "duration": 5.0},
            "duration is 5.0 s, it must be 0 or at least keyframe_gap",
        ),
        ({"version": "../escape"}, "version"),
        ({"relief": -0.1}, "relief"),
        ({"relief": 2.0}, "relief"),
        ({"relief": float("nan")}, "relief"),
        ({"weather": "hail"}, "weather is 'hail', it must be mixed, clear, overcast, dusk, night or rain"),
        ({"maps": ""}, "maps"),
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, object], name: str) -> None:
    with pytest.raises(BridgeTAError, match=name) as caught:
        SynthSettings(**{"scenes": 1, **change})  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_splits_of_a_seed_have_their_own_random_streams() -> None:
    seeds = [SynthSettings(scenes=1, seed=4, split=split).seeds for split in ("train", "val", "test")]
    assert seeds == [(4, 0), (4, 1), (4, 2)]


@pytest.mark.parametrize(
    ("duration", "keyframes_only", "lidar", "files"),
    [
        (0.0, False, True, 7),
        (2.0, True, True, 7 * 5),
        (2.0, False, True, 6 * (4 * 6 + 1) + 4 * 10 + 1),
        (2.4, False, False, 6 * (4 * 6 + 1)),
    ],
)
def test_cameras_run_at_12_hz_and_lidar_at_20_hz(
    duration: float, keyframes_only: bool, lidar: bool, files: int
) -> None:
    settings = SynthSettings(scenes=1, duration=duration, keyframes_only=keyframes_only, lidar=lidar)
    assert settings.files_per_scene == files


def test_the_gap_between_keyframes_adds_sweeps_but_no_keyframes() -> None:
    wide = SynthSettings(scenes=1, duration=8.0, keyframe_gap=8.0)
    dense = SynthSettings(scenes=1, duration=8.0)
    assert (wide.keyframes, dense.keyframes) == (2, 17)
    assert wide.files_per_scene == dense.files_per_scene
    assert SynthSettings(scenes=1, duration=8.0, keyframe_gap=8.0, keyframes_only=True).files_per_scene == 14
