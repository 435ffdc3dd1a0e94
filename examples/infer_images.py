"""From a folder of images to a map: `python examples/infer_images.py FOLDER RIG OUT.png`.

FOLDER has an image per camera, named after it (CAM_FRONT.jpg); RIG is the cameras' calibration (docs/rig.md).
"""

import sys
from pathlib import Path

import cv2

from bridgeta_core import Rig, Runtime
from bridgeta_core.view.bev import paint_bev


def main(folder: str, rig_file: str, out: str) -> None:
    """Draw what the shipped student sees."""
    rig, runtime = Rig.load(rig_file), Runtime("tiny")
    images = {path.stem: cv2.imread(str(path))[..., ::-1] for path in Path(folder).iterdir()}  # OpenCV reads BGR
    probabilities = runtime(images, rig)  # [6, 200, 200]: class, y, x
    for name, least, grid in zip(runtime.info.classes, runtime.info.thresholds, probabilities, strict=True):
        print(f"{name:14} {(grid >= least).sum() * runtime.grid.resolution**2:6.0f} m2")
    cv2.imwrite(out, paint_bev(probabilities, runtime.grid, 800, runtime.info.thresholds)[..., ::-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
