"""PANNs against a forward pass written here with functions, from the tensors of a checkpoint alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.config.frontend import Frontend
from core.config.run import Clip
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.models.backbone import build_backbone
from core.models.families.paper_networks import FAMILY, LOG_MEL_RANGE
from core.models.input_transform.normalise import Normalise
from core.models.networks import NETWORKS

PARAMETERS = {"cnn6": 4_837_455, "cnn10": 5_219_279, "cnn14": 80_753_615, "resnet38": 73_783_247}
BLOCKS = {"cnn6": 4, "cnn10": 4, "cnn14": 6}
UNITS = (3, 4, 6, 3)
LARGE = pytest.mark.slow  # about 300 MB of weights each


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_equals_the_published_network(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name].make(527, (1, 64, 1001))
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


def batch_norm(x: torch.Tensor, state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])


def convolution_block(x: torch.Tensor, state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    for k in (1, 2):
        if f"{name}.conv{k}.weight" in state:
            weight = state[f"{name}.conv{k}.weight"]
            x = F.relu(batch_norm(F.conv2d(x, weight, padding=weight.shape[-1] // 2), state, f"{name}.bn{k}"))
    return x


def residual_unit(x: torch.Tensor, state: Mapping[str, torch.Tensor], name: str, *, halve: bool) -> torch.Tensor:
    x = F.avg_pool2d(x, 2) if halve else x
    y = F.relu(batch_norm(F.conv2d(x, state[f"{name}.conv1.weight"], padding=1), state, f"{name}.bn1"))
    y = batch_norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2")
    if shortcut := [key for key in state if key.startswith(f"{name}.downsample") and state[key].ndim == 4]:
        (key,) = shortcut
        place = int(key.split(".")[-2])
        x = batch_norm(F.conv2d(x, state[key]), state, f"{name}.downsample.{place + 1}")
    return F.relu(x + y)


def forward(name: str, decibels: torch.Tensor, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return logits of log-mel images (batch, frames, bands), as in the authors' description of the networks."""
    x = batch_norm(decibels[:, None].transpose(1, 3), state, "bn0").transpose(1, 3)
    if name == "resnet38":
        x = F.avg_pool2d(convolution_block(x, state, "conv_block1"), 2)
        for layer, count in enumerate(UNITS, start=1):
            for unit in range(count):
                x = residual_unit(x, state, f"resnet.layer{layer}.{unit}", halve=layer > 1 and unit == 0)
        x = convolution_block(F.avg_pool2d(x, 2), state, "conv_block_after1")
    else:
        for k in range(1, BLOCKS[name] + 1):
            x = convolution_block(x, state, f"conv_block{k}")
            x = F.avg_pool2d(x, 2) if k < 6 else x
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    x = F.relu(F.linear(x, state["fc1.weight"], state["fc1.bias"]))
    return F.linear(x, state["fc_audioset.weight"], state["fc_audioset.bias"])


def make_checkpoint(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Write a checkpoint as the authors publish it, with random tensors, and return its state dict."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, tensor in NETWORKS[name].make(527, (1, 64, 64)).state_dict().items():
        if key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif key == "bn0.running_mean":
            state[key] = -30 + torch.randn(tensor.shape, generator=generator)
        elif key.endswith(("running_mean", "bias")) or "bn" in key:
            state[key] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        else:
            state[key] = tensor
    front_end = {
        "spectrogram_extractor.stft.conv_real.weight": torch.ones(513, 1, 1024),
        "logmel_extractor.melW": torch.ones(513, 64),
    }
    torch.save({"iteration": 600_000, "model": state | front_end}, path)
    return state


@pytest.mark.parametrize(
    "name", ["cnn6", "cnn10", pytest.param("cnn14", marks=LARGE), pytest.param("resnet38", marks=LARGE)]
)
def test_published_checkpoint_gives_the_logits_of_an_independent_forward(name: str, tmp_path: Path) -> None:
    state = make_checkpoint(name, tmp_path / "published.pth")
    backbone = build_backbone(name, 527, weights=str(tmp_path / "published.pth"), input_shape=(3, 64, 96)).eval()
    decibels = -60 + 100 * torch.rand(2, 64, 96, generator=torch.Generator().manual_seed(1))
    mean, std = backbone.mean, backbone.std
    normalise = Normalise.fixed(mean, std, LOG_MEL_RANGE)
    with torch.no_grad():
        logits = backbone(normalise(decibels[:, None]))
        expected = forward(name, decibels.transpose(1, 2), state)
    spread = expected.std().item()
    assert spread > 0.01
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=2e-4 * spread)
    new = build_backbone(name, 10, weights=str(tmp_path / "published.pth"), input_shape=(3, 64, 96))
    torch.testing.assert_close(new.original_state_dict()["fc1.weight"], state["fc1.weight"])
    assert new.original_state_dict()["fc_audioset.weight"].shape[0] == 10


def test_statistics_keep_the_decibels_of_log_mel_images() -> None:
    layout = LogMel.layout(Clip(sr=32_000, duration=1.0), Frontend(n_mels=64, n_frames=101, window=1024, hop=320))
    assert layout.value_range == LOG_MEL_RANGE
    mean, std = FAMILY.statistics(torch.nn.Identity(), "cnn6", 3)
    x = torch.tensor([-60.0, 0.0, 40.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(Normalise.fixed(mean, std, LOG_MEL_RANGE)(x)[0, 0, 0], x[0, 0, 0], atol=1e-5, rtol=0)


def test_too_small_image_is_one_line() -> None:
    with pytest.raises(UserError, match="cnn14 needs at least 32 mel bands and frames"):
        build_backbone("cnn14", 2, weights="random", input_shape=(3, 64, 31))
