"""Call the exported graphs by OpenVINO: `python examples/call_exported_graph.py tiny_vehicle`.

`bridgeta export tiny tiny_vehicle --for vehicle` writes the folder. It needs neither PyTorch nor BridgeTA; its own
example.py does the same by ONNX Runtime.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino


def main(exported: str) -> None:
    """Run the graphs on the images that lie in the folder."""
    folder = Path(exported)
    sys.path.insert(0, str(folder))
    from lift_plan import cut_out, fit_image, pad_lift, plan_lift

    description = json.loads((folder / "description.json").read_text())
    cameras = json.loads((folder / "sample" / "cameras.json").read_text())
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}  # without it a CPU that has bfloat16 takes it
    image, lift, bev = (core.compile_model(folder / f"{name}.onnx", "CPU", exact) for name in ("image", "lift", "bev"))

    size = description["image"]["width"], description["image"]["height"]
    pictures = [cv2.imread(str(folder / "sample" / camera["image"]))[..., ::-1] for camera in cameras]
    fits = [fit_image(picture.shape[1], picture.shape[0], description) for picture in pictures]
    k = [matrix @ np.array(camera["intrinsics"]) for (_, _, matrix), camera in zip(fits, cameras, strict=True)]
    ground, start, source = plan_lift(k, [camera["vehicle_T_camera"] for camera in cameras], description)
    indices = pad_lift(start, source, ground.size * len(description["lift"]["depths"]))

    inputs = [
        cut_out(cv2.resize(picture, resized, interpolation=cv2.INTER_AREA), *corner, *size)
        for picture, (resized, corner, _) in zip(pictures, fits, strict=True)
    ]
    depth, features = image({"images": np.stack(inputs), "ground": ground}).values()
    (lifted,) = lift({"depth": depth, "features": features, **indices}).values()
    (probabilities,) = bev({"lifted": lifted}).values()
    with np.load(folder / "sample" / "expected.npz") as expected:
        print(f"largest difference from BridgeTA: {np.abs(probabilities - expected['probabilities']).max():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
