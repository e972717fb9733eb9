"""Lets a torchvision built for CUDA be imported beside a CPU-only torch.

The compiled operators of such a torchvision cannot load, and ``import torchvision`` then fails while registering
fake kernels for ``torchvision::nms`` and ``torchvision::qnms``. Declaring the two schemas first is enough for
everything used here (transforms v2, timm, segmentation-models-pytorch, pytorch-lightning); the operators themselves
stay unavailable. Nothing happens where the compiled operators load, or where torchvision was imported before.
"""

import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # kept alive: its schemas go when it does


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to remedy; the import itself will say that torchvision is missing
    libraries = [p for p in Path(spec.origin).parent.glob("_C*") if p.suffix in {".so", ".pyd", ".dylib"}]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)


def make_importable() -> bool:
    """Declare the operator schemas of torchvision when its compiled operators cannot load.

    Returns:
        Whether the remedy was applied, now or before.
    """
    global _library
    if _library is None and "torchvision" not in sys.modules and not _compiled_operators_load():
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
    return _library is not None
