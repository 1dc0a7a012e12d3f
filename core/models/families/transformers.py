"""Transformers of timm as stages: stem (patches and positions), groups of layers as blocks, and head.

ViT, DeiT, BEiT and MLP-Mixer are divided into four groups of layers of equal size, Swin into its four stages. Between
stages, activations have the channels on axis 1 like those of convolutional networks: (batch, channels, tokens), and
(batch, channels, height, width) for Swin. The first tokens may be a class token and register tokens.

A spectrogram has another size than the images of the pretraining. Position embeddings follow it as in AST (Gong et al.
2021, arXiv:2104.01778): those of the pretraining are cut from the middle of an axis that is shorter, and interpolated
bilinearly along an axis that is longer.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from core.models.family import Layout, name_stages

N_BLOCKS = 4
_LAYERS = {  # attribute with the layers, by the name of timm's class
    "VisionTransformer": "blocks",
    "Beit": "blocks",
    "MlpMixer": "blocks",
    "SwinTransformer": "layers",
    "SwinTransformerV2": "layers",
}
_HEAD = ("norm", "fc_norm", "head_drop", "head")
POSITIONS = "pos_embed"


def is_transformer(model: nn.Module) -> bool:
    """Return whether a timm model is one of the transformers that this module divides into stages."""
    return type(model).__name__ in _LAYERS and getattr(model, "attn_pool", None) is None


def find_layout(model: nn.Module) -> Layout:
    """Return the module paths of each stage of a transformer; the head begins with the last norm."""
    attribute = _LAYERS[type(model).__name__]
    layers = [f"{attribute}.{name}" for name, _ in model.get_submodule(attribute).named_children()]
    n_blocks = min(N_BLOCKS, len(layers))
    ends = [round(k * len(layers) / n_blocks) for k in range(n_blocks + 1)]
    blocks = [tuple(layers[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    first = tuple(name for name, _ in model.named_children() if name not in (attribute, *_HEAD))
    head = tuple(name for name in _HEAD if hasattr(model, name))
    return dict(zip(name_stages(n_blocks), [first, *blocks, head], strict=True))


def assemble_stages(model: nn.Module, layout: Layout) -> dict[str, nn.Module]:
    """Return the modules of each stage, which share their parameters with the model.

    Run in order, they compute the model's forward pass.
    """
    stages: dict[str, nn.Module] = {"stem": _make_stem(model)}
    for stage, paths in layout.items():
        modules = OrderedDict((path.replace(".", "/"), model.get_submodule(path)) for path in paths)
        if stage == "head":
            stages[stage] = _make_head(model, modules)
        elif stage != "stem":
            stages[stage] = TokenLayers(modules)
    return stages


class TokenLayers(nn.Sequential):
    """Layers of a transformer, with the channels of input and output on axis 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, tokens) or (batch, channels, height, width) to the same axes."""
        x = x.movedim(1, -1)
        for layer in self:
            x = layer(x)
        return x.movedim(-1, 1)


class ChannelsLast(nn.Module):
    """Move the channels from axis 1 to the last axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, positions .., channels)."""
        return x.movedim(1, -1)


class TokenPool(nn.Module):
    """Class token, or mean of the patch tokens: (batch, tokens, channels) -> (batch, channels).

    Parameters
    ----------
    mode
        ``token`` for the class token, ``avg`` for the mean.
    n_prefix
        Number of class and register tokens.
    """

    def __init__(self, mode: str, n_prefix: int) -> None:
        super().__init__()
        self.mode, self.n_prefix = mode, n_prefix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, channels)."""
        return x[:, 0] if self.mode == "token" else x[:, self.n_prefix :].mean(dim=1)


def _make_stem(model: nn.Module) -> nn.Module:
    """Return the patch embedding: a copy of the model without layers and norm that shares its parameters."""
    attribute = _LAYERS[type(model).__name__]
    stem = copy.copy(model)
    stem._modules = {name: child for name, child in model._modules.items() if name not in (attribute, *_HEAD)}
    stem._modules |= {attribute: nn.Sequential(), "norm": nn.Identity()}
    stem._parameters, stem._buffers = dict(model._parameters), dict(model._buffers)
    kind: Any = type(f"{type(model).__name__}Stem", (type(model),), {"forward": _embed})
    stem.__class__ = kind
    return stem


def _embed(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Map images (batch, 3, height, width) to embedded patches with the channels on axis 1."""
    embedded: torch.Tensor = self.forward_features(x)
    return embedded.movedim(-1, 1)


def _make_head(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Sequential:
    named: OrderedDict[str, nn.Module] = OrderedDict(tokens=ChannelsLast(), norm=modules["norm"])
    if isinstance(modules["head"], nn.Linear):  # Swin's head pools the positions itself
        pooling: Any = getattr(model, "global_pool", "avg")
        named["pool"] = TokenPool(pooling, getattr(model, "num_prefix_tokens", 0))
    return nn.Sequential(named | {name: module for name, module in modules.items() if name != "norm"})


def adapt_position_embeddings(state: Mapping[str, torch.Tensor], stem: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights whose position embeddings fit the grid of patches of a stem; others are unchanged.

    The grid of patches of the pretraining is assumed to be a square.
    """
    adapted = dict(state)
    own = getattr(stem, POSITIONS, None)
    for key in state:
        if isinstance(own, torch.Tensor) and key.endswith(POSITIONS) and state[key].shape != own.shape:
            patch_embed: Any = stem.get_submodule("patch_embed")
            n_prefix = own.shape[1] - math.prod(patch_embed.grid_size)
            side = math.isqrt(max(0, state[key].shape[1] - n_prefix))
            if side and side * side + n_prefix == state[key].shape[1] and state[key].ndim == 3:
                adapted[key] = resize_positions(state[key], (side, side), patch_embed.grid_size, n_prefix)
    return adapted


def resize_positions(embeddings: torch.Tensor, old: Sequence[int], new: Sequence[int], n_prefix: int) -> torch.Tensor:
    """Resize position embeddings from one grid of patches to another, as in AST.

    Parameters
    ----------
    embeddings
        (1, `n_prefix` + old height * old width, channels).
    old, new
        Height and width of the grids, in patches.
    n_prefix
        Number of class and register tokens in front, whose embeddings are kept.

    Returns
    -------
    torch.Tensor
        (1, `n_prefix` + new height * new width, channels). The shorter axes are cut from the middle; the longer ones
        are interpolated bilinearly.
    """
    prefix, grid = embeddings[:, :n_prefix], embeddings[:, n_prefix:]
    grid = grid.transpose(1, 2).reshape(1, -1, *old)
    for axis, size in enumerate(new):
        if size <= grid.shape[2 + axis]:
            grid = grid.narrow(2 + axis, (grid.shape[2 + axis] - size) // 2, size)
    grid = F.interpolate(grid.float(), size=tuple(new), mode="bilinear", align_corners=False).to(embeddings.dtype)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)
