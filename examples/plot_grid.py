"""Plot the probabilities of all classes for a sample of a dataset: `python examples/plot_grid.py ROOT OUT.png`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bridgeta_core import Runtime
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.nuscenes.versions import list_versions


def main(root: str, out: str, position: str = "0") -> None:
    """Plot with the vehicle driving up."""
    runtime = Runtime("tiny")
    sample = open_dataset("nuscenes", root, list_versions(Path(root))[0])[int(position)]
    rig = sample.rig(runtime.info.cameras)
    images = {name: sample.record(name).read_image() for name in rig.names}
    probabilities, grid = runtime(images, rig), runtime.grid
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, name, layer in zip(np.ravel(figure.subplots(2, 3)), runtime.info.classes, probabilities, strict=True):
        extent = (grid.y_max, grid.y_min, grid.x_min, grid.x_max)  # y is to the left
        shown = axes.imshow(layer.T[:, ::-1], origin="lower", extent=extent, vmin=0, vmax=1, cmap="viridis")
        axes.set(title=name, xlabel="y, m", ylabel="x, m")
    figure.colorbar(shown, ax=figure.axes, label="probability", shrink=0.6)
    figure.savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
