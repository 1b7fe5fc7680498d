"""Networks that domains share: a U-Net, transformers on patches, and their parts. They know grids and edges only."""

from .attention import CrossAttention, SelfAttention, attention
from .control import DiTControl, UNetControl
from .convolution import Conv
from .dit import DiT
from .embedding import FourierEmbedding, GuidanceScale, NoiseLevel
from .experts import Experts, Routing
from .lora import add_lora, load_lora, lora_state, merge_lora, remove_lora, scale_lora
from .mmdit import MMDiT
from .padding import Circular, Padding, SpherePadding, Zeros
from .rotary import Rotary
from .temporal import TemporalAttention
from .unet import UNet

__all__ = [
    "Circular",
    "Conv",
    "CrossAttention",
    "DiT",
    "DiTControl",
    "Experts",
    "FourierEmbedding",
    "GuidanceScale",
    "MMDiT",
    "NoiseLevel",
    "Padding",
    "Rotary",
    "Routing",
    "SelfAttention",
    "SpherePadding",
    "TemporalAttention",
    "UNet",
    "UNetControl",
    "Zeros",
    "add_lora",
    "attention",
    "load_lora",
    "lora_state",
    "merge_lora",
    "remove_lora",
    "scale_lora",
]
