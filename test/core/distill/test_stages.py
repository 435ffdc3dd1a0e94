"""What lies between the taps, recorded while a network runs, and computed anew from the teacher's F."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.distill.stages import (
    StageAdapter,
    compute_stages,
    record_fuser_input,
    record_stages,
    replace_stage,
    split_fusion,
)


def test_the_stages_are_what_the_decoder_gives_on_its_way(bench):
    with record_stages(bench.student.decoder) as stages:
        taps = bench.student.eval()(bench.images, bench.student.plan(bench.intrinsics, bench.ego_T_cam))
    features = torch.relu(taps.F)
    for stage, recorded in zip(bench.student.decoder.stages, stages, strict=True):
        features = stage(features)
        assert torch.equal(features, recorded)
        assert recorded.requires_grad
    bench.student(bench.images, bench.student.plan(bench.intrinsics, bench.ego_T_cam))
    assert len(stages) == len(bench.student.decoder.stages)  # nothing is recorded after the block


def test_the_teachers_stages_follow_from_its_f_alone(bench):
    with record_stages(bench.teacher.decoder) as stages:
        taps = bench.teacher_taps()
    computed = compute_stages(bench.teacher, taps.F)
    assert all(torch.equal(one, other) for one, other in zip(computed, stages, strict=True))
    assert not any(stage.requires_grad for stage in computed)


def test_f_follows_from_the_fusers_input(bench):
    with record_fuser_input(bench.teacher) as fused:
        taps = bench.teacher_taps()
    assert torch.equal(bench.teacher.fuser(fused[0]), taps.F)


@pytest.mark.parametrize("kind", ["bench", "imported_bench"])
def test_the_shares_of_the_sensors_add_up_to_f(kind, request):
    bench = request.getfixturevalue(kind)
    taps = bench.teacher_taps()
    shares = split_fusion(bench.teacher, bench.fused)
    assert all(share.shape == taps.F.shape for share in shares)
    torch.testing.assert_close(bench.teacher.fuser[1](sum(shares)), taps.F, atol=1e-5, rtol=1e-5)
    cameras = bench.teacher.model.lift.channels
    without = bench.fused.clone()
    without[:, :cameras] = 0
    torch.testing.assert_close(split_fusion(bench.teacher, without)[1], shares[1])
    assert split_fusion(bench.teacher, without)[0].abs().max() == 0


def test_a_stage_that_fits_is_left_alone_and_another_brought_to_the_teachers_shape(bench, narrow_bench):
    taps = bench.teacher_taps()
    wanted = compute_stages(bench.teacher, taps.F)[1]
    adapter = StageAdapter(bench.student, bench.teacher, 1, 1)
    assert torch.equal(adapter(wanted, wanted.shape[-2:]), wanted)
    narrow_bench.student_taps()
    assert narrow_bench.stages[0].shape[-2:] != wanted.shape[-2:]
    adapted = StageAdapter(narrow_bench.student, bench.teacher, 0, 1)(narrow_bench.stages[0], wanted.shape[-2:])
    assert adapted.shape == wanted.shape


def test_a_replaced_stage_is_what_all_that_follows_sees(bench):
    student = bench.student.eval()
    features = torch.relu(bench.student_taps().F)
    first, second = (torch.rand_like(x) for x in bench.stages)
    with replace_stage(student.decoder, 0, first), record_stages(student.decoder) as stages:
        student.decoder(features)
    torch.testing.assert_close(stages[1], student.decoder.stages[1](first))
    with replace_stage(student.decoder, 0, first), replace_stage(student.decoder, 1, second):
        replaced = student.decoder(features)
        assert torch.equal(student.decoder(torch.zeros_like(features)), replaced)
    assert not torch.allclose(student.decoder(features), replaced)  # nothing is replaced after the block
