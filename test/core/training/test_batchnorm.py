"""Batch norms over all processes: with one process they are PyTorch's own; for several see test_distributed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed
from torch import nn

from bridgeta_core.training.batchnorm import SharedBatchNorm


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    path = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("layer", "shape"), [(nn.BatchNorm1d, (7, 4)), (nn.BatchNorm2d, (3, 4, 5, 6))])
def test_it_computes_what_pytorch_does(layer, shape, momentum):
    plain = layer(4, momentum=momentum).double()
    nn.init.normal_(plain.weight)
    shared = SharedBatchNorm(cuda=False).apply(copy.deepcopy(plain))
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        x = 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(value) for norm, value in zip((plain, shared), inputs, strict=True)]
        for output in outputs:
            output.pow(3).sum().backward()
        assert torch.allclose(*outputs)
        assert torch.allclose(*(value.grad for value in inputs))
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name]), name
    assert torch.allclose(plain.weight.grad, shared.weight.grad)
    assert torch.allclose(plain.eval()(x), shared.eval()(x))


def test_untracked_running_statistics_do_not_change():
    norm = SharedBatchNorm(cuda=False).apply(nn.BatchNorm2d(2))
    norm.track_running_stats = False
    norm(torch.randn(2, 2, 3, 3))
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("cuda", [False, True])
def test_revert_restores_the_plain_layers(cuda):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(5)))
    layers, keys, weight = list(model.modules()), list(model.state_dict()), model[1].weight
    sync = SharedBatchNorm(cuda)
    assert sync.apply(model) is model
    assert type(model[1]) is not nn.BatchNorm2d
    assert isinstance(model[1], nn.BatchNorm2d)
    assert isinstance(model[1], nn.SyncBatchNorm) == cuda
    assert list(model.state_dict()) == keys
    sync.revert(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in layers]
    assert type(model[2][0]) is nn.BatchNorm1d
    assert model[1].weight is weight
