"""Tell when the memory of a GPU is used up."""

from __future__ import annotations

import torch

_EXHAUSTED = (("CUDA", "out of memory"), ("_STATUS_ALLOC_FAILED",), ("Failed to allocate memory for requested buffer",))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, says that the GPU's memory is used up.

    PyTorch's allocator has an error type for it. The driver, when it makes the context, and the CUDA libraries, when
    they make their handles, allocate without it; their failures are a RuntimeError that only the text identifies.
    """
    while error is not None:
        # This name is in every supported version of PyTorch; later ones call the same class torch.OutOfMemoryError.
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return True
        text = str(error)
        # The errors of ONNX Runtime have no common type.
        of_library = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
        if of_library and any(all(word in text for word in words) for words in _EXHAUSTED):
            return True
        error = error.__cause__
    return False
