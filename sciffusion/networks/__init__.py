"""Networks that domains share: a U-Net and what it is built from. They know tensors, grids and edges only."""

from .attention import CrossAttention, SelfAttention, attention
from .convolution import Conv
from .embedding import FourierEmbedding, NoiseLevel
from .padding import Circular, Padding, SpherePadding, Zeros
from .unet import UNet

__all__ = [
    "Circular",
    "Conv",
    "CrossAttention",
    "FourierEmbedding",
    "NoiseLevel",
    "Padding",
    "SelfAttention",
    "SpherePadding",
    "UNet",
    "Zeros",
    "attention",
]
