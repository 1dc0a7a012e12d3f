"""Architecture of a network: layers and stages with output shapes and parameters, and memory."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from analysis.output.number_format import format_integer, format_text
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from core.errors import UserError, first_line
from core.models import freeze_fuse_cut
from core.models.auxiliary import find_auxiliary_heads
from core.models.backbone import Backbone
from core.models.family import format_shape
from core.models.multiply_adds import count_multiply_adds

BYTES_PER_NUMBER, BYTES_PER_MB = 4, 2**20  # fp32; papers call 2^20 bytes 1 MB
COLUMNS = (
    Column("number", "No."),
    Column("stage", "Stage"),
    Column("layer", "Layer"),
    Column("kind", "Type"),
    Column("output", "Output shape"),
    Column("parameters", "Parameters", format_integer),
)
STAGE_COLUMNS = (
    COLUMNS[1],
    Column("modules", "Modules"),
    *COLUMNS[4:],
    Column("trainable_parameters", "Trainable", format_integer),
)
WHOLE_NETWORK = "base"  # condition of the unchanged network in published tables


@dataclass(frozen=True)
class NetworkTotals:
    """Totals of a network for one input. Sizes are in MB (2^20 bytes) for fp32.

    Attributes
    ----------
    parameters
        Number of parameters.
    trainable_parameters
        Number of parameters that are trained: those outside frozen stages.
    parameters_with_statistics
        Number of parameters plus moving means and variances of batch norms, as in Keras.
    multiply_adds
        Multiply-adds of convolutions and matrix products.
    input_mb
        Size of the input.
    pass_mb
        Size of all layer outputs and their gradients.
    parameters_mb
        Size of the parameters.
    """

    parameters: int
    trainable_parameters: int
    parameters_with_statistics: int
    multiply_adds: int
    input_mb: float
    pass_mb: float
    parameters_mb: float

    @property
    def non_trainable_parameters(self) -> int:
        """Number of parameters of frozen stages."""
        return self.parameters - self.trainable_parameters

    @property
    def total_mb(self) -> float:
        """Sum of input, pass and parameters."""
        return self.input_mb + self.pass_mb + self.parameters_mb

    @property
    def lines(self) -> list[str]:
        """The totals as lines of text."""
        return [
            f"Parameters: {self.parameters:,}; trainable: {self.trainable_parameters:,}; "
            f"non-trainable: {self.non_trainable_parameters:,}; "
            f"with moving statistics: {self.parameters_with_statistics:,}.",
            f"Multiply-adds for one input: {self.multiply_adds:,}.",
            f"Input size (MB): {self.input_mb:.2f}; forward/backward pass size (MB): {self.pass_mb:.2f}; "
            f"params size (MB): {self.parameters_mb:.2f}; total (MB): {self.total_mb:.2f}.",
        ]


def list_layers(backbone: Backbone) -> tuple[pd.DataFrame, NetworkTotals]:
    """Return the layers of a network in the order of execution, and its totals.

    The list has the format of torchsummary, which papers print: one row for each call of a module. A ReLU that a
    residual block calls twice has two rows. Modules that contain other modules have a row without parameters.
    `nn.Sequential` and `nn.Flatten` have no row. Auxiliary classifiers are included.

    Returns
    -------
    layers
        One row per call: ``number`` (from 1), ``stage``, ``layer`` (path in the stage), ``kind``, ``output`` shape, and
        ``parameters`` (0 from the second call of a module on).
    totals
        Totals of the network.

    Raises
    ------
    UserError
        If the network does not accept the input shape.
    """
    backbone = backbone.eval()
    image = torch.zeros(1, *backbone.input_shape)
    try:
        rows = _trace_layers(backbone, image)
        multiply_adds = count_multiply_adds(backbone, image)
    except RuntimeError as error:  # e.g. a kernel larger than the feature map
        shape = format_shape(backbone.input_shape)
        raise UserError(f"{backbone.name} does not take an input of {shape} ({first_line(error)})") from error
    parameters = freeze_fuse_cut.count_parameters(backbone)
    totals = NetworkTotals(
        parameters=parameters,
        trainable_parameters=freeze_fuse_cut.count_trainable_parameters(backbone),
        parameters_with_statistics=freeze_fuse_cut.count_parameters_with_statistics(backbone),
        multiply_adds=round(multiply_adds),
        input_mb=image.numel() * BYTES_PER_NUMBER / BYTES_PER_MB,
        pass_mb=2 * sum(row["numbers"] for row in rows) * BYTES_PER_NUMBER / BYTES_PER_MB,
        parameters_mb=parameters * BYTES_PER_NUMBER / BYTES_PER_MB,
    )
    layers = pd.DataFrame(rows).drop(columns="numbers")
    layers.insert(0, "number", range(1, len(layers) + 1))
    return layers, totals


def summarise_stages(backbone: Backbone) -> pd.DataFrame:
    """Return one row per stage of a network.

    The columns are ``stage``, ``modules`` (top-level modules with parameters, e.g. "6 × DenseLayer, Transition"),
    ``output`` (its shape), ``parameters`` (their number), ``trainable_parameters``, and ``units`` (number of the most
    frequent module, e.g. the dense layers of a dense block).
    """
    rows = []
    backbone, features = backbone.eval(), torch.zeros(1, *backbone.input_shape)
    for stage, module in backbone.named_children():
        with torch.no_grad():
            features = module(features)
        counts = freeze_fuse_cut.count_parameters(module), freeze_fuse_cut.count_trainable_parameters(module)
        rows.append((stage, format_shape(features.shape[1:]), *counts))
    frame = pd.DataFrame(rows, columns=["stage", "output", "parameters", "trainable_parameters"])
    modules = [Counter(_module_types(backbone.get_submodule(stage))) for stage in frame["stage"]]
    texts = [", ".join(f"{n} × {name}" if n > 1 else name for name, n in counts.items()) for counts in modules]
    return frame.assign(modules=texts, units=[max(counts.values(), default=0) for counts in modules])


def write_architecture(results: OutputFolder, backbone: Backbone, *, title: str) -> pd.DataFrame:
    """Write the table of the stages of a network and the list of its layers.

    Returns
    -------
    rows
        The rows of `summarise_stages` with the stage as ``condition``, and one row for the whole network with the
        condition `WHOLE_NETWORK` and the last frozen stage (``freeze``; "none" without one). Their ``data`` is "": an
        architecture does not depend on the data set.
    """
    layers, totals = list_layers(backbone)
    stages = summarise_stages(backbone)
    results.write_table("table", stages, STAGE_COLUMNS, caption=title, footnotes=totals.lines)
    results.write_table("layers", layers, COLUMNS, caption=f"Layers of {title}", footnotes=totals.lines, show=False)
    frozen = stages.loc[stages["trainable_parameters"] < stages["parameters"], "stage"].tolist()
    whole = {
        "condition": WHOLE_NETWORK,
        "freeze": frozen[-1] if frozen else "none",
        "parameters": totals.parameters,
        "parameters_with_statistics": totals.parameters_with_statistics,
        "trainable_parameters": totals.trainable_parameters,
        "non_trainable_parameters": totals.non_trainable_parameters,
        "multiply_adds": totals.multiply_adds,
        "input_megabytes": totals.input_mb,
        "pass_megabytes": totals.pass_mb,
        "parameters_megabytes": totals.parameters_mb,
        "total_megabytes": totals.total_mb,
    }
    rows = pd.concat([stages.assign(condition=stages["stage"]), pd.DataFrame([whole])], ignore_index=True)
    return rows.assign(data="", backbone=backbone.name)


def _module_types(module: nn.Module) -> Iterator[str]:
    """Yield the type of each module with parameters; containers are replaced by their children."""
    if type(module) is nn.Sequential or isinstance(module, nn.ModuleDict | nn.ModuleList):
        for child in module.children():
            yield from _module_types(child)
    elif next(module.parameters(), None) is not None:
        yield format_text(type(module).__name__.lstrip("_"))


def _trace_layers(backbone: Backbone, image: torch.Tensor) -> list[dict[str, Any]]:
    """Return one row per call of a layer in a forward pass, then one per layer with parameters that was not called."""
    rows: list[dict[str, Any]] = []
    called: set[str] = set()
    layers = {
        name: m
        for name, m in backbone.named_modules()
        if name and type(m) is not nn.Sequential and not isinstance(m, nn.Flatten)
    }

    def make_row(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        stage, _, path = name.partition(".")
        parameters = () if name in called else layers[name].parameters(recurse=False)
        called.add(name)
        return {
            "stage": stage,
            "layer": format_text(path.replace("/", ".")),
            "kind": type(layers[name]).__name__,
            "output": format_shape(shape),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "numbers": math.prod(shape) if shape else 0,
        }

    def hook(name: str) -> Any:
        def receive(module: nn.Module, inputs: Any, output: Any) -> None:
            rows.append(make_row(name, tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()))

        return receive

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    side = find_auxiliary_heads(backbone).values()
    try:
        for part in side:
            part.training = True  # their batch norms stay in evaluation mode, as the batch has one input
        backbone(image)
    finally:
        for handle in handles:
            handle.remove()
        for part in side:
            part.training = False
            part.pop_logits()
    for name, module in layers.items():
        if name not in called and next(module.parameters(recurse=False), None) is not None:
            rows.append(make_row(name, ()))
    return rows
