"""The principal components of a teacher's features."""

from __future__ import annotations

import numpy as np
import torch

from bridgeta_core.distill.pca import PrincipalComponents


def sample(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    shift = 4 * torch.randn(1, 6, 1, 1, generator=generator)
    raw = [torch.randn(2, 6, 5, 4, generator=generator) for _ in range(count)]
    return [torch.einsum("dc,bcyx->bdyx", mixing, x) + shift for x in raw]


def test_the_components_are_those_of_a_singular_value_decomposition():
    batches, pca = sample(), PrincipalComponents(6, 3)
    pca.fit(batches)
    cells = torch.cat(batches).transpose(0, 1).flatten(1).T.double().numpy()
    normalised = (cells - cells.mean(axis=0)) / cells.std(axis=0)
    _, _, expected = np.linalg.svd(normalised, full_matrices=False)
    cosines = pca.components.double().numpy() @ expected.T
    np.testing.assert_allclose(np.abs(cosines), np.eye(6)[:3], atol=1e-5)
    projected = torch.cat([pca(x) for x in batches]).transpose(0, 1).flatten(1).double().numpy()
    np.testing.assert_allclose(projected, pca.components.double().numpy() @ normalised.T, atol=1e-4)


def test_what_comes_out_is_uncorrelated_and_in_the_order_of_falling_variance():
    batches, pca = sample(), PrincipalComponents(6, 6)
    pca.fit(batches)
    covariance = torch.cov(torch.cat([pca(x) for x in batches]).transpose(0, 1).flatten(1))
    variances = covariance.diagonal()
    assert (covariance - torch.diag(variances)).abs().max() < 1e-3
    assert (variances.diff() <= 0).all()


def test_nothing_in_it_is_trained_and_a_checkpoint_has_all_of_it():
    one, other = PrincipalComponents(6, 3), PrincipalComponents(6, 3)
    one.fit(sample())
    assert not list(one.parameters())
    other.load_state_dict(one.state_dict())
    x = sample(1)[0]
    assert torch.equal(one(x), other(x))
