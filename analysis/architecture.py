"""What a network is made of: its layers by stage, what each gives out and learns, and the memory it takes."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from analysis.network_cost import count_multiply_adds
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_text
from analysis.output.tables import Column
from core.errors import UserError
from core.models import surgery
from core.models.auxiliary import find_auxiliary_heads
from core.models.backbone import Backbone
from core.models.family import format_shape
from core.models.weights import first_line

BYTES_PER_NUMBER, BYTES_PER_MB = 4, 2**20  # of a number in fp32; of what the reports' figures call MB
COLUMNS = (
    Column("stage", "Stage"),
    Column("layer", "Layer"),
    Column("kind", "Type"),
    Column("output", "Output shape"),
    Column("parameters", "Parameters", lambda value: f"{value:,}"),
)
STAGE_COLUMNS = (COLUMNS[0], Column("made", "Made of"), *COLUMNS[3:])
WHOLE_NETWORK = "base"  # what the condition of a network is called with which nothing was done


@dataclass(frozen=True)
class NetworkTotals:
    """Of a whole network, for one input; sizes in MB (2^20 bytes) of fp32 numbers.

    Attributes
    ----------
    parameters, parameters_with_statistics
        What it learns, without and with the moving statistics of batch norm, which Keras counts too.
    multiply_adds
        Of convolutions and matrix products.
    input_mb, pass_mb, parameters_mb
        Of the input; of what every layer gives out, twice, for the way forward and back; of the parameters.
    """

    parameters: int
    parameters_with_statistics: int
    multiply_adds: int
    input_mb: float
    pass_mb: float
    parameters_mb: float

    @property
    def total_mb(self) -> float:
        """All of it."""
        return self.input_mb + self.pass_mb + self.parameters_mb

    @property
    def lines(self) -> list[str]:
        """The totals in words."""
        return [
            f"Parameters: {self.parameters:,}; with moving statistics: {self.parameters_with_statistics:,}.",
            f"Multiply-adds for one input: {self.multiply_adds:,}.",
            f"Input size (MB): {self.input_mb:.2f}; forward/backward pass size (MB): {self.pass_mb:.2f}; "
            f"params size (MB): {self.parameters_mb:.2f}; total (MB): {self.total_mb:.2f}.",
        ]


def list_layers(backbone: Backbone) -> tuple[pd.DataFrame, NetworkTotals]:
    """Return the layers of a network in the order they run, and its totals.

    As in the listings of the reports, modules made of others are layers too, without parameters of their own, and add
    to what is given out, as does a layer every time it runs; containers that only run others in order are not layers.
    Auxiliary classifiers are counted as in training.

    Raises
    ------
    UserError
        For an input that the network does not take.
    """
    backbone = backbone.eval().requires_grad_(False)
    image = torch.zeros(1, *backbone.input_shape)
    try:
        rows = _trace_layers(backbone, image)
        multiply_adds = count_multiply_adds(backbone, image)
    except RuntimeError as error:  # a kernel that is larger than what is left of the image
        shape = format_shape(backbone.input_shape)
        raise UserError(f"{backbone.name} does not take an input of {shape} ({first_line(error)})") from error
    parameters = surgery.count_parameters(backbone)
    totals = NetworkTotals(
        parameters=parameters,
        parameters_with_statistics=surgery.count_parameters_with_statistics(backbone),
        multiply_adds=round(multiply_adds),
        input_mb=image.numel() * BYTES_PER_NUMBER / BYTES_PER_MB,
        pass_mb=2 * sum(row["numbers"] for row in rows) * BYTES_PER_NUMBER / BYTES_PER_MB,
        parameters_mb=parameters * BYTES_PER_NUMBER / BYTES_PER_MB,
    )
    return pd.DataFrame(rows).drop(columns="numbers"), totals


def summarise_stages(layers: pd.DataFrame, backbone: Backbone) -> pd.DataFrame:
    """Return one row for each stage of a network whose layers are those of `list_layers`.

    Columns
    -------
    stage, made
        Its name, and the modules with parameters that it runs, in words; those made of others count as one.
    output, parameters
        What its last layer gives out, and the parameters of all of them.
    units
        How often the module is in it that is in it most: the dense layers of a dense block.
    """
    stages = layers.groupby("stage", sort=False)
    found: pd.DataFrame = stages.agg(output=("output", "last"), parameters=("parameters", "sum")).reset_index()
    modules = [Counter(_module_types(backbone.get_submodule(stage))) for stage in found["stage"]]
    words = [", ".join(f"{n} × {name}" if n > 1 else name for name, n in counted.items()) for counted in modules]
    return found.assign(made=words, units=[max(counted.values(), default=0) for counted in modules])


def write_architecture(results: OutputFolder, backbone: Backbone, *, title: str) -> pd.DataFrame:
    """Write the table of a network's stages, without its layers.

    Returns
    -------
    rows
        The rows of `summarise_stages` with the stage as ``condition``, and one row for the whole network with the
        condition `WHOLE_NETWORK`. Their ``data`` is "": an architecture does not depend on the data set.
    """
    layers, totals = list_layers(backbone)
    stages = summarise_stages(layers, backbone)
    results.write_table("table", stages, STAGE_COLUMNS, caption=title, footnotes=totals.lines)
    whole = {
        "condition": WHOLE_NETWORK,
        "parameters": totals.parameters,
        "parameters_with_statistics": totals.parameters_with_statistics,
        "trainable_parameters": totals.parameters,
        "non_trainable_parameters": 0,
        "multiply_adds": totals.multiply_adds,
        "input_megabytes": totals.input_mb,
        "pass_megabytes": totals.pass_mb,
        "parameters_megabytes": totals.parameters_mb,
        "total_megabytes": totals.total_mb,
    }
    rows = pd.concat([stages.assign(condition=stages["stage"]), pd.DataFrame([whole])], ignore_index=True)
    return rows.assign(data="", backbone=backbone.name)


def _module_types(module: nn.Module) -> Iterator[str]:
    """Go through the kinds of the modules with parameters that containers hold."""
    if type(module) is nn.Sequential or isinstance(module, nn.ModuleDict | nn.ModuleList):
        for child in module.children():
            yield from _module_types(child)
    elif next(module.parameters(), None) is not None:
        yield format_text(type(module).__name__.lstrip("_"))


def _trace_layers(backbone: Backbone, image: torch.Tensor) -> list[dict[str, Any]]:
    """Run the network once and list its layers; those with parameters that did not run as modules come last."""
    rows: dict[str, dict[str, Any]] = {}
    layers = {name: m for name, m in backbone.named_modules() if name and type(m) is not nn.Sequential}

    def listed(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        stage, _, path = name.partition(".")
        return {
            "stage": stage,
            "layer": format_text(path.replace("/", ".")),
            "kind": type(layers[name]).__name__,
            "output": format_shape(shape),
            "parameters": sum(parameter.numel() for parameter in layers[name].parameters(recurse=False)),
            "numbers": 0,
        }

    def hook(name: str) -> Any:
        def receive(module: nn.Module, inputs: Any, output: Any) -> None:
            shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
            row = rows.setdefault(name, listed(name, shape))
            if shape and not isinstance(module, nn.Flatten):  # which gives out the same numbers in another shape
                row["numbers"] += math.prod(shape)

        return receive

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    side = find_auxiliary_heads(backbone).values()
    try:
        for part in side:
            part.training = True  # their heads stay in evaluation mode: batch norm takes no single input
        backbone(image)
    finally:
        for handle in handles:
            handle.remove()
        for part in side:
            part.training = False
            part.pop_logits()
    for name, module in layers.items():
        if name not in rows and next(module.parameters(recurse=False), None) is not None:
            rows[name] = listed(name, ())
    return list(rows.values())
