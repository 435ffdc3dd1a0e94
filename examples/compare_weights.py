"""Compare two weights on the same samples: `python examples/compare_weights.py ROOT tiny tiny_labels`."""

import sys
from pathlib import Path

from rich.console import Console

from bridgeta_core.data.nuscenes.versions import list_versions
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.evaluation.report import Comparison


def main(root: str, first: str, second: str) -> None:
    """Print the IoU of both and of the difference, with intervals by a bootstrap over scenes."""
    version = list_versions(Path(root))[0]
    a, b = (evaluate_weights(weights, root, version) for weights in (first, second))
    Console().print(Comparison.of(a, b).build_table())


if __name__ == "__main__":
    main(*sys.argv[1:])
