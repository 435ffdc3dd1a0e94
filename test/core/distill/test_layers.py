"""All layers of a teacher: where they come from, and how many channels they have."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_networks import GRID, bevfusion_student, small_student, small_teacher
from torch import nn

from bridgeta_core.config.experiment import DecoderConfig
from bridgeta_core.distill.layers import compute_layers, list_layer_widths
from bridgeta_core.distill.stages import compute_stages, fuses
from bridgeta_core.model.student import Taps
from bridgeta_core.model.teacher import Teacher


def taps_of(teacher: Teacher) -> Taps:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, teacher.model.decoder.width, *teacher.bev_grid.shape, generator=generator)
    with torch.no_grad():
        return teacher.decode(features)


@pytest.mark.parametrize(
    "decoder",
    [
        DecoderConfig(width=12, stages=[8, 16], blocks=3, channels=6),
        DecoderConfig(width=12, stages=[8, 16], blocks=3, channels=6, kind="plain"),
        DecoderConfig(width=12, stages=[8, 10, 16], blocks=2, channels=6, kind="resnet"),
    ],
    ids=lambda d: d.kind,
)
def test_every_block_of_a_decoder_is_a_layer_and_every_group_ends_in_what_it_hands_on(decoder):
    torch.manual_seed(0)
    teacher = Teacher(small_teacher(), small_student(decoder=decoder), GRID, pretrained=False).eval()
    taps = taps_of(teacher)
    fused = torch.randn(2, teacher.fuser[0].in_channels, *teacher.bev_grid.shape)
    layers = compute_layers(teacher, taps, fused)
    assert [[x.shape[1] for x in group] for group in layers] == list_layer_widths(teacher)
    assert [len(group) for group in layers[1:-1]] == [decoder.blocks] * len(decoder.stages)
    for group, last in zip(layers, (taps.F, *compute_stages(teacher, taps.F), taps.D), strict=True):
        assert torch.equal(group[-1], last)
        assert len({x.shape[-2:] for x in group}) == 1
        assert not any(x.requires_grad for x in group)
    first, *others = layers[1]
    assert not any(torch.allclose(first, other) for other in others)


def test_a_stage_is_its_blocks_one_after_the_other(bench):
    decoder = DecoderConfig(width=12, stages=[8, 16], blocks=3, channels=6)
    teacher = Teacher(small_teacher(), small_student(decoder=decoder), GRID, pretrained=False).eval()
    taps = taps_of(teacher)
    fused = torch.randn(2, teacher.fuser[0].in_channels, *teacher.bev_grid.shape)
    x = torch.relu(taps.F)
    for block, layer in zip(teacher.decoder.stages[0], compute_layers(teacher, taps, fused)[1], strict=True):
        x = block(x)
        torch.testing.assert_close(layer, x)


def test_what_a_decoder_joins_to_d_is_d(bench):
    t = bench.teacher_taps()
    *joined, d = compute_layers(bench.teacher, t, bench.fused)[-1]
    torch.testing.assert_close(torch.cat(joined, dim=1), d)


def test_a_teacher_of_one_sensor_has_no_parts():
    teacher = Teacher(small_teacher("lidar"), small_student(), GRID, pretrained=False).eval()
    assert not fuses(teacher)
    assert len(compute_layers(teacher, taps_of(teacher), None)[0]) == 1
    unfused = dataclasses.replace(small_teacher("lidar", width=12), fuser=False)
    teacher = Teacher(unfused, small_student(), GRID, pretrained=False)
    assert isinstance(teacher.fuser, nn.Identity)
    assert list_layer_widths(teacher)[0] == [12]


def test_a_teacher_of_bevfusions_camera_network_has_layers_too():
    config = bevfusion_student()
    teacher = Teacher(small_teacher(), config, GRID, pretrained=False).eval()
    fused = torch.randn(2, teacher.fuser[0].in_channels, *teacher.bev_grid.shape)
    layers = compute_layers(teacher, taps_of(teacher), fused)
    assert [[x.shape[1] for x in group] for group in layers] == list_layer_widths(teacher)
