"""ImageNet's statistics, which every RES model's images are normalised with."""

from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean, divide by its standard deviation; float32 [B, 3, S, S] in [0, 1] to the same shape."""
    return tvf.normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
