"""Networks that domains share: a U-Net, a transformer on patches, and their parts. They know grids and edges only."""

from .attention import CrossAttention, SelfAttention, attention
from .convolution import Conv
from .dit import DiT
from .embedding import FourierEmbedding, NoiseLevel
from .padding import Circular, Padding, SpherePadding, Zeros
from .rotary import Rotary
from .unet import UNet

__all__ = [
    "Circular",
    "Conv",
    "CrossAttention",
    "DiT",
    "FourierEmbedding",
    "NoiseLevel",
    "Padding",
    "Rotary",
    "SelfAttention",
    "SpherePadding",
    "UNet",
    "Zeros",
    "attention",
]
