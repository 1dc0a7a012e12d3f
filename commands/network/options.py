"""Options of the command ``network``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.layer_spec import DEFAULT_MLP_LAYERS
from core.config.options import copy_option, option
from core.config.run import Model
from core.models import FAMILIES


@dataclass(frozen=True)
class Network:
    """Print the layers of a network by stage: output shapes, parameters, multiply-adds and memory.

    Nothing is trained and no data set is read.

    Examples
    --------
    run_ablation.py network --backbone resnet50
    run_ablation.py network --backbone alexnet --head 1024-512-128 --own-dropout --freeze last
    run_ablation.py network --backbone densenet201 --input-shape 3 128 250 --results results
    """

    runs: ClassVar[str] = "commands.network.run:run"
    prepares: ClassVar[str] = "commands.network.run:prepare"
    alone: ClassVar[tuple[str, ...]] = (
        "backbone",
        "head",
        "mlp-layers",
        "dropout",
        "own-dropout",
        "freeze",
        "weights",
    )  # a study describes one network for each value of these

    backbone: str = option(Model.backbone, f"Network: {'; '.join(family.about for family in FAMILIES.values())}.")
    head: str = option("", "Widths of the hidden dense layers before the classifier, such as 1024-512-128.")
    layers: str = option(
        DEFAULT_MLP_LAYERS,
        "Activation and width of each layer of --backbone mlp, such as relu64-tanh48.",
        flag="mlp-layers",
    )
    classes: int = option(10, "Number of classes.", at_least=1, at_most=10**6)
    input: tuple[int, ...] = option(
        (),
        "Shape of one input: channels, height and width, or number of features.",
        default_text="3 224 224, or 57 features",
        flag="input-shape",
    )
    dropout: float = copy_option(Model, "dropout")
    own_dropout: bool = copy_option(Model, "own_dropout")
    freeze: str = option(
        "none", "Last frozen stage: none, stem (or 0), 1 .. N, or last; parameters of frozen stages are not trainable."
    )
    weights: str = option("random", "Starting weights: imagenet, random, or a file.")
    results: Path | None = option(None, "Also write the tables to this folder of results, as CSV, Markdown and LaTeX.")
    json: bool = option(False, "Print one JSON object to stdout.")
