"""The teacher assistant: where it starts, what it sees, what it costs."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.config.distill import AssistantConfig
from bridgeta_core.model.assistant import TeacherAssistant


def features(channels: int = 16):
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, channels, 6, 5, generator=g).unbind()


@pytest.mark.parametrize("w", [0.2, 0.5, 0.8])
def test_it_starts_between_teacher_and_student(w):
    a, c = features()
    b, z = TeacherAssistant(16, AssistantConfig(channels=8))(a, c, w)
    torch.testing.assert_close(b, (1 - w) * a + w * c)
    assert z.shape == (2, 8, 6, 5)


def test_without_the_skip_it_starts_at_random():
    a, c = features()
    torch.manual_seed(0)
    b, _ = TeacherAssistant(16, AssistantConfig(channels=8, skip=False))(a, c, 0.5)
    assert b.shape == a.shape
    assert float(b.detach().std()) > 0


@pytest.mark.parametrize(("inputs", "blind"), [("teacher", 1), ("student", 0)])
def test_with_one_input_the_other_is_ignored(inputs, blind):
    pair = list(features())
    torch.manual_seed(0)
    assistant = TeacherAssistant(16, AssistantConfig(channels=8, inputs=inputs))
    torch.nn.init.normal_(assistant.output.weight)
    first, _ = assistant(*pair, 0.5)
    pair[blind] = torch.randn(pair[blind].shape)
    second, _ = assistant(*pair, 0.5)
    assert torch.equal(first, second)
    pair[1 - blind] = torch.randn(pair[blind].shape)
    third, _ = assistant(*pair, 0.5)
    assert not torch.equal(first, third)


def test_every_parameter_gets_a_gradient():
    a, c = features()
    assistant = TeacherAssistant(16, AssistantConfig(channels=8))
    torch.nn.init.normal_(assistant.output.weight)
    assistant(a, c, 0.5)[0].square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in assistant.parameters())


def test_the_assistant_is_light():
    # kd_methods: about 0.17 M parameters at 256 channels.
    parameters = sum(p.numel() for p in TeacherAssistant(256, AssistantConfig()).parameters())
    assert parameters == pytest.approx(0.17e6, rel=0.1)


def test_samples_of_a_batch_do_not_mix():
    a, c = features()
    torch.manual_seed(0)
    assistant = TeacherAssistant(16, AssistantConfig(channels=8, skip=False))
    both, _ = assistant(a, c, 0.5)
    alone, _ = assistant(a[:1], c[:1], 0.5)
    torch.testing.assert_close(both[:1], alone)
