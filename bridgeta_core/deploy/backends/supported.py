"""Which precisions each back end has on which kind of device; without importing any of them."""

from __future__ import annotations

SUPPORTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("torch", "cpu"): ("float32", "bfloat16"),
    ("torch", "cuda"): ("float32", "float16", "bfloat16"),
    ("openvino", "cpu"): ("float32", "bfloat16", "int8"),
    ("onnxruntime", "cpu"): ("float32", "int8"),
    ("onnxruntime", "cuda"): ("float32",),
    ("tensorrt", "cuda"): ("float32", "float16"),
}
"""The precisions by back end and kind of device. The first is what the others are compared with."""

NAMES = ("auto", *dict.fromkeys(name for name, _ in SUPPORTED))
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
