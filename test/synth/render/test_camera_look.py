"""From linear light to images: what a camera's look changes, and what it leaves alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bridgeta_synth.render.camera_look import develop
from bridgeta_synth.world.camera_look import CameraLook, draw_look
from bridgeta_synth.world.light import Light, draw_light

PLAIN = CameraLook(
    exposure=1.0,
    white_balance=(1.0, 1.0, 1.0),
    saturation=1.0,
    vignetting=0.0,
    sharpness=0.0,
    glare=0.0,
    noise=0.0,
    black=0.0,
    drops=(),
    jpeg_quality=90,
)


def light(weather: str, rain: float = 0.0) -> Light:
    drawn = draw_light(np.random.default_rng(0), weather)
    return dataclasses.replace(drawn, rain=rain, wet=rain, lamps=weather == "night")


def ramp(height: int = 64, width: int = 96, top: float = 2.0) -> Tensor:
    """Make greys that rise from left to right."""
    row = torch.linspace(0.01, top, width)
    return row[None, :, None].repeat(height, 1, 3)


def render(radiance: Tensor, weather: str = "clear", seed: int = 1, rain: float = 0.0, **look: object) -> Tensor:
    return develop(radiance, dataclasses.replace(PLAIN, **look), light(weather, rain), seed)  # type: ignore[arg-type]


def test_more_light_never_looks_darker_and_grey_stays_grey() -> None:
    shown = render(ramp()).int()
    assert (shown[:, 1:] >= shown[:, :-1]).all()
    assert int(shown[0, -1, 0]) > int(shown[0, 0, 0]) + 100
    assert (shown == shown[..., :1]).all()


@given(st.floats(0.02, 1.0))
@settings(max_examples=25)
def test_exposure_follows_the_light_part_of_the_way(level: float) -> None:
    flat = torch.full((32, 32, 3), level)
    here, brighter = (int(render(flat * factor)[0, 0, 0]) for factor in (1.0, 4.0))
    # Unexposed, four times the light would be worth two stops: more than 60 values in the middle of the curve.
    assert here < brighter < here + 60


def test_white_balance_tints_and_desaturation_fades_colour() -> None:
    flat = torch.full((32, 32, 3), 0.3)
    red, _, blue = render(flat, white_balance=(1.1, 1.0, 0.9))[0, 0].int().tolist()
    assert red > blue
    colourful = flat * torch.tensor((1.5, 1.0, 0.5))
    spread = [int(p.max() - p.min()) for p in (render(colourful, saturation=s)[0, 0].int() for s in (1.0, 0.5, 0.0))]
    assert spread[0] > spread[1] > spread[2] == 0


def test_vignetting_darkens_the_corners_only() -> None:
    flat = torch.full((90, 160, 3), 0.3)
    with_it, without = render(flat, vignetting=0.3).int(), render(flat).int()
    assert (with_it[45, 80] - without[45, 80]).abs().max() <= 1
    assert (with_it[0, 0] < without[0, 0] - 10).all()


@given(st.floats(-0.15, 0.15))
@settings(max_examples=20)
def test_sharpening_and_blurring_leave_edges_where_they_are(amount: float) -> None:
    step = torch.full((40, 60, 3), 0.1)
    step[:, 30:] = 0.5
    shown = render(step, sharpness=amount)[20, :, 0].int()
    middle = (int(shown[5]) + int(shown[-5])) / 2
    assert (shown[:30] < middle).all()
    assert (shown[30:] > middle).all()
    assert torch.equal(shown[2:28], shown[2:3].expand(26))


def test_noise_depends_on_the_seed_alone_and_grows_at_night() -> None:
    day, night = torch.full((64, 64, 3), 0.3), torch.full((64, 64, 3), 0.01)
    first = render(day, noise=0.01)
    assert torch.equal(first, render(day, noise=0.01))
    assert not torch.equal(first, render(day, noise=0.01, seed=2))
    assert first.float().std() < 0.7 * render(night, "night", noise=0.01).float().std()
    # Neither rows nor planes repeat each other's noise.
    rows = first[..., 0].float()
    assert abs(float(torch.corrcoef(torch.stack((rows[0], rows[1])))[0, 1])) < 0.5


def test_images_do_not_depend_on_threads_or_memory_layout() -> None:
    rng = np.random.default_rng(5)
    radiance = torch.from_numpy(rng.gamma(1.0, 0.1, (450, 800, 3)).astype(np.float32))
    before = radiance.clone()
    look = draw_look(rng, light("night", 0.7))
    threads = torch.get_num_threads()
    try:
        shown = []
        for count in (1, 2):
            torch.set_num_threads(count)
            shown.append(develop(radiance, look, light("night", 0.7), 9))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(radiance, before)
    # Planes in memory, as the shader returns them, give the same image.
    planes = radiance.permute(2, 0, 1).contiguous()
    assert torch.equal(shown[0], develop(planes.permute(1, 2, 0), look, light("night", 0.7), 9))
    assert torch.equal(planes, before.permute(2, 0, 1))


def test_drops_change_what_is_under_them_and_nothing_else() -> None:
    radiance = ramp(90, 160)
    # So little rain makes no streaks, but the drops are drawn all the same.
    dry = render(radiance, rain=1e-9)
    wet = render(radiance, rain=1e-9, drops=((0.5, 0.25, 0.05),))
    changed = (dry != wet).any(dim=-1).nonzero().float()
    assert len(changed) > 20
    away = (changed - torch.tensor((40.0, 80.0))).norm(dim=1)
    assert away.max() <= 9.5
