"""Checks of the stages of a network."""

import torch
from torch import nn

from core.models.backbone import build_backbone
from core.models.family import Family, Shape, name_stages
from core.models.stages import has_plain_head, list_stages


def check_stages(family: Family, name: str, shape: Shape) -> None:
    """Check the stages of a network: they have all its parameters and compute its forward pass.

    Answers of the family that need no network are compared with those of the network.
    """
    model = family.make(name, num_classes=5, input_shape=shape, dropout=0.0)
    layout = family.layout(model, name)
    backbone = build_backbone(name, 5, weights="random", dropout=0.0, input_shape=shape)
    assert tuple(layout) == list_stages(name, shape) == backbone.stage_names == name_stages(len(layout) - 2)
    assert backbone.original_state_dict().keys() == model.state_dict().keys()
    owners = [id(p) for stage in backbone.stage_names for p in backbone.stage(stage).parameters()]
    assert len(owners) == len(set(owners)) == len(list(model.parameters()))
    head = sum(1 for key in backbone.state_dict() if key.startswith("head."))
    assert not has_plain_head(name, shape) or head == 2
    classes = getattr(model.get_submodule(family.classifier(model, name)), "out_features")  # noqa: B009
    assert isinstance(backbone.get_submodule(backbone.classifier), nn.Linear)
    original = family.make(name, num_classes=classes, input_shape=shape, dropout=0.0)
    chain = build_backbone(name, classes, weights="random", dropout=0.0, input_shape=shape)
    original.load_state_dict(chain.original_state_dict())
    found, expected = (use_batch_statistics(network)(make_noise(shape)) for network in (chain, original))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - found.mean(0)).abs().max() > 1e-3


def make_noise(shape: Shape) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))


def use_batch_statistics(network: nn.Module) -> nn.Module:
    """Set evaluation mode, but let batch norms use batch statistics, as the signal of a new network would vanish."""
    for module in network.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    return network
