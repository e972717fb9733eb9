"""torchvision, imported so that one built for CUDA also works next to a CPU-only torch.

The compiled operators of such a torchvision cannot load, and ``import torchvision`` then fails because it registers
fake kernels for operators that do not exist. Declaring these operators is enough for everything used here (transforms
v2, timm, segmentation-models-pytorch); they stay unavailable. Import torchvision from this module, or import this
module before the first import of a library that imports torchvision.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    declared = torch.library.Library("torchvision", "DEF")  # kept: the declarations go when it does
    declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

__all__ = ["torchvision", "tv_tensors", "tvf", "v2"]
