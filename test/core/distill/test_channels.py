"""The divergence of channels' distributions over the cells, by what its formula says."""

from __future__ import annotations

import torch

from bridgeta_core.distill.channels import spatial_divergence


def test_the_divergence_is_never_negative():
    t, s = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert (spatial_divergence(t, s, torch.ones(6, 6)) >= 0).all()


def test_cells_beyond_the_labels_do_not_count():
    t, s = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(6, 6)
    inside[1:5, 1:5] = 1
    changed = s.clone()
    changed[:, :, 0] += 7 * torch.randn(6)
    assert torch.equal(spatial_divergence(t, s, inside), spatial_divergence(t, changed, inside))
