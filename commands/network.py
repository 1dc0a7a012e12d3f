"""The `network` command: what a backbone is made of, before anything is trained."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console

from commands.cli.parser import Call
from core.config.layer_spec import PERCEPTRON, head_widths
from core.config.options import option, problems
from core.config.run import Model
from core.errors import UserError
from core.models import FAMILIES, family_of
from core.models.family import VECTOR, shown
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from commands.study.experiment import Experiment
    from core.session import Session

# All of these import torch or pandas, which takes seconds.
architecture = Lazy("analysis.architecture")
experiment = Lazy("commands.study.experiment:Experiment")
plan = Lazy("core.plan:Plan")
tables = Lazy("analysis.output.tables")
build = Lazy("core.models.backbone:build")
IMAGE_SHAPE, VECTOR_SHAPE = (3, 224, 224), (57,)  # as the reports' pictures and features are


@dataclass(frozen=True)
class Network:
    """Print the layers of a backbone by stage: what each gives out and learns, and the size of it all.

    Nothing is read and nothing trained: classes and the shape of the input are said here.

    Example: run_ablation.py network --backbone alexnet --head 1024-512-128 --classes 10
    """

    runs: ClassVar[str] = "commands.network:run"
    prepares: ClassVar[str] = "commands.network:prepare"
    alone: ClassVar[tuple[str, ...]] = ("backbone", "head", "mlp-layers", "dropout", "weights")  # one of each at a time

    backbone: str = option(Model.backbone, f"Backbone: {'; '.join(family.about for family in FAMILIES.values())}.")
    head: str = option("", "Widths of dense layers before the classifier, such as 1024-512-128.")
    layers: str = option(
        PERCEPTRON, "Activation and width of each layer of backbone mlp, such as relu64-tanh48.", flag="mlp-layers"
    )
    classes: int = option(10, "Width of the output.", at_least=1, at_most=10**6)
    input: tuple[int, ...] = option(
        (), "Shape of one input: channels, height and width, or features (default: 3 224 224, or 57 features)."
    )
    dropout: float = option(Model.dropout, "Dropout before the classifier.", at_least=0.0, below=1.0)
    weights: str = option("random", "Starting weights: imagenet, random, or a file.")
    results: Path | None = option(None, "Folder of results: write the tables there too, as CSV, Markdown and LaTeX.")
    json: bool = option(False, "Print one JSON object.")


def run(call: Call) -> int:
    """Print the layers, the stages and the totals."""
    asked: Network = call.command
    backbone, title = _built(asked)
    layers, totals = architecture.describe(backbone)
    stages = architecture.by_stage(layers, backbone)
    if asked.json:
        found = {"network": title, "layers": layers.to_dict("records"), "stages": stages.to_dict("records")}
        print(json.dumps(found | {"totals": dataclasses.asdict(totals) | {"total_mb": totals.total_mb}}))  # noqa: T201
    console = Console(stderr=asked.json, highlight=False)
    if not asked.json:
        for table in (
            tables.make_console_table(layers, architecture.COLUMNS, title=title, groups=["stage"]),
            tables.make_console_table(stages, architecture.STAGE_COLUMNS),
        ):  # a narrow window may break lines; it must not cut a column off
            console.print(table, width=max(console.width, console.measure(table).minimum), crop=False)
        for line in totals.lines:
            console.print(line, soft_wrap=True)
    if asked.results:
        folder = asked.results / call.name / re.sub(r"[^\w.-]+", "-", title, flags=re.ASCII)
        for part, frame, columns in (
            ("layers", layers, architecture.COLUMNS),
            ("stages", stages, architecture.STAGE_COLUMNS),
        ):
            for file in _write(folder / part, frame, columns, title, totals.lines):
                console.print(f"  {file}", soft_wrap=True)
    return 0


def prepare(call: Call, session: "Session") -> "Experiment":
    """Describe a network as an item of a study, which has no runs."""
    backbone, title = _built(call.command)
    made: Experiment = experiment(
        plan(call.name, (), {}),
        title,
        lambda results: architecture.write_architecture(results, backbone, title=title),
        trains=False,
    )
    return made


def _built(asked: Network) -> tuple[Any, str]:
    """Return the backbone that was asked for, and what tables call it."""
    name, shape = _checked(asked)
    options = {"weights": asked.weights, "dropout": asked.dropout, "head": head_widths(asked.head)}
    title = f"{name}{f', head {asked.head}' if asked.head else ''}, {asked.classes} classes, input {shown(shape)}"
    return build(name, asked.classes, input_shape=shape, **options), title


def _checked(asked: Network) -> tuple[str, tuple[int, ...]]:
    """Return the name of the network and the shape of its input."""
    words = {key: getattr(asked, key) for key in ("backbone", "head", "layers", "weights", "dropout")}
    model = Model(**words)
    if found := problems(model):
        raise UserError("; ".join(found))
    if any(size < 1 for size in asked.input) or len(asked.input) > 3:
        raise UserError(f"--input {shown(asked.input)}: give channels, height and width, or features, each at least 1")
    fallback = VECTOR_SHAPE if family_of(model.network).takes(model.network) == VECTOR else IMAGE_SHAPE
    return model.network, asked.input or fallback


def _write(path: Path, frame: "pd.DataFrame", columns: Any, title: str, lines: list[str]) -> list[Path]:
    label = f"tab:network-{path.name}"
    written: list[Path] = tables.write_table(
        frame, path, columns=columns, caption=title, label=label, footnotes=lines, groups=["stage"]
    )
    return written
