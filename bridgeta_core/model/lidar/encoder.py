"""BEVFusion's encoder of LiDAR: sparse 3D convolutions, and the columns of what they make."""

from __future__ import annotations

from torch import Tensor, nn

from bridgeta_core.config.experiment import SparseConfig
from bridgeta_core.model.lidar.convolution import ResidualBlock, Strided, Submanifold
from bridgeta_core.model.lidar.sites import Sites


class SparseEncoder(nn.Module):
    """Features of active voxels `[n, inputs]` to columns `[B, output * Z, X, Y]`, X and Y shorter by 2^(stages - 1).

    The encoder of SECOND (Yan et al. 2018) with residual blocks, as in BEVFusion (Liu et al. 2023): every stage but the
    last ends with a 3x3x3 convolution of stride 2, the last is brought to `output` channels by one of 3 voxels and
    stride 2 along z. In the columns the place along z is the inner index of the channels.
    """

    def __init__(self, inputs: int, config: SparseConfig) -> None:
        super().__init__()
        widths = config.channels
        self.input = Submanifold(inputs, widths[0])
        self.stages, self.down = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            self.stages.append(nn.ModuleList(ResidualBlock(width) for _ in range(config.blocks)))
            if i < len(widths) - 1:
                along_z = 1 if i < len(widths) - 2 else 0
                self.down.append(Strided(width, widths[i + 1], (3, 3, 3), (2, 2, 2), (1, 1, along_z)))
        self.output = Strided(widths[-1], config.output, (1, 1, 3), (1, 1, 2), (0, 0, 0))

    def forward(self, features: Tensor, sites: Sites) -> Tensor:
        """Encode the features of the rows of `sites`."""
        features = self.input(features, sites)
        for i, blocks in enumerate(self.stages):
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features, sites)
            if i < len(self.down):
                features, sites = self.down[i](features, sites)
        features, sites = self.output(features, sites)
        return _stack_columns(features, sites)


def _stack_columns(features: Tensor, sites: Sites) -> Tensor:
    """Lay out features `[n, C]` of voxels as `[B, C * Z, X, Y]`, channels last in memory; elsewhere are zeros."""
    (x, y, z), channels = sites.size, features.shape[1]
    sample, *place = sites.coordinates
    row = ((sample * x + place[0]) * y + place[1]) * z + place[2]
    volume = features.new_zeros(sites.batch * x * y * z, channels).index_copy(0, row, features)
    return (
        volume.view(sites.batch, x, y, z, channels).transpose(3, 4).reshape(sites.batch, x, y, -1).permute(0, 3, 1, 2)
    )


def count_heights(cells: int, strides: int) -> int:
    """Return the voxels along z that an encoder with `strides` stages after the first leaves of `cells`."""
    for i in range(strides):
        cells = (cells + (2 if i < strides - 1 else 0) - 3) // 2 + 1
    return (cells - 3) // 2 + 1
