"""Run the exported network on a set of camera images: python example.py [CAMERAS.json] (see README.md)."""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or it reports to its maker
import onnxruntime
from lift_plan import cut_out, fit_image, pad_lift, plan_lift

here = Path(__file__).resolve().parent
cameras_file = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "sample" / "cameras.json"
description, cameras = (json.loads(path.read_text()) for path in (here / "description.json", cameras_file))
size = description["image"]["width"], description["image"]["height"]
graphs = {name: onnxruntime.InferenceSession(here / f"{name}.onnx") for name in ("image", "lift", "bev")}

# Once per calibration: the lift.
pictures = [cv2.imread(str(cameras_file.parent / camera["image"])) for camera in cameras]
fits = [fit_image(picture.shape[1], picture.shape[0], description) for picture in pictures]
intrinsics = [matrix @ np.array(camera["intrinsics"]) for (_, _, matrix), camera in zip(fits, cameras, strict=True)]
ground, start, source = plan_lift(intrinsics, [camera["vehicle_T_camera"] for camera in cameras], description)
indices = pad_lift(start, source, ground.size * len(description["lift"]["depths"]))

# Once per set of images.
images = []
for picture, (resized, (left, top), _) in zip(pictures, fits, strict=True):
    picture = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), resized, interpolation=cv2.INTER_AREA)
    images.append(cut_out(picture, left, top, *size))
depth, features = graphs["image"].run(None, {"images": np.stack(images), "ground": ground})
(lifted,) = graphs["lift"].run(None, {"depth": depth, "features": features, **indices})
(probabilities,) = graphs["bev"].run(None, {"lifted": lifted})

for name, grid in zip(description["classes"], probabilities, strict=True):
    print(f"{name:14} {grid.shape[0]} x {grid.shape[1]} cells, {100 * (grid > 0.4).mean():.1f} % above 0.4")
if len(sys.argv) == 1:
    with np.load(here / "sample" / "expected.npz") as expected:
        print(f"largest difference from BridgeTA: {np.abs(probabilities - expected['probabilities']).max():.1e}")
        for c, name in enumerate(description["classes"] if "labels" in expected else []):
            label, both = expected["labels"][c], (probabilities[c], expected["probabilities"][c])
            ious = [((grid > 0.4) & label).sum() / max(((grid > 0.4) | label).sum(), 1) for grid in both]
            print(f"{name:14} IoU {100 * ious[0]:.2f} %, BridgeTA's {100 * ious[1]:.2f} %")
