"""Describe a network: layers, stages, parameters and multiply-adds."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.planning.call import Call
from ablations.planning.experiment import Experiment
from analysis import architecture
from analysis.output import tables
from commands.cli.console import EscapingConsole
from commands.network.options import Network
from core.config.layer_spec import parse_head_widths
from core.config.options import list_problems
from core.config.run import Model
from core.errors import UserError
from core.models import find_family, freeze_fuse_cut
from core.models.backbone import build_backbone
from core.models.family import VECTOR, format_shape
from core.models.stages import parse_stage
from core.plan import Plan
from core.session import Session

IMAGE_SHAPE, VECTOR_SHAPE = (3, 224, 224), (57,)  # default input shapes: images, and feature vectors of GTZAN


def run(call: Call) -> int:
    """Print the layers, the stages and the totals of a network."""
    options: Network = call.command
    backbone, title = _build_backbone(options)
    layers, totals = architecture.list_layers(backbone)
    stages = architecture.summarise_stages(backbone)
    if options.json:
        answer = {"network": title, "layers": layers.to_dict("records"), "stages": stages.to_dict("records")}
        sums = {"non_trainable_parameters": totals.non_trainable_parameters, "total_mb": totals.total_mb}
        print(json.dumps(answer | {"totals": dataclasses.asdict(totals) | sums}))  # noqa: T201
    console = EscapingConsole(stderr=options.json)
    if not options.json:
        for table in (
            tables.make_console_table(layers, architecture.COLUMNS, title=title, groups=["stage"]),
            tables.make_console_table(stages, architecture.STAGE_COLUMNS),
        ):
            tables.print_console_table(table, console)
        for line in totals.lines:
            console.print(line, soft_wrap=True)
    if options.results:
        folder = options.results / call.name / re.sub(r"[^\w.-]+", "-", title, flags=re.ASCII)
        for part, frame, columns in (
            ("layers", layers, architecture.COLUMNS),
            ("stages", stages, architecture.STAGE_COLUMNS),
        ):
            for file in _write_table(folder / part, frame, columns, title, totals.lines):
                console.print(f"  {file}", soft_wrap=True)
    return 0


def prepare(call: Call, session: Session) -> Experiment:
    """Prepare the description of a network as an experiment of a study, without runs."""
    backbone, title = _build_backbone(call.command)
    return Experiment(
        Plan(call.name, (), {}),
        title,
        lambda results: architecture.write_architecture(results, backbone, title=title),
        trains=False,
    )


def _build_backbone(options: Network) -> tuple[Any, str]:
    """Build the backbone of the options; return it with the title of its tables."""
    name, shape = _check_options(options)
    stage = parse_stage(options.freeze, name, shape)
    head_text = f", head {options.head}" if options.head else ""
    frozen_text = f", frozen through {stage}" if stage != "none" else ""
    title = f"{name}{head_text}{frozen_text}, {options.classes} classes, input {format_shape(shape)}"
    backbone = build_backbone(
        name,
        options.classes,
        input_shape=shape,
        weights=options.weights,
        dropout=None if options.own_dropout else options.dropout,
        head=parse_head_widths(options.head),
    )
    return freeze_fuse_cut.freeze(backbone, stage), title


def _check_options(options: Network) -> tuple[str, tuple[int, ...]]:
    """Return the name of the network and the shape of its input."""
    values = {key: getattr(options, key) for key in ("backbone", "head", "layers", "weights", "dropout", "own_dropout")}
    model = Model(**values)
    if problems := list_problems(model):
        raise UserError("; ".join(problems))
    if any(size < 1 for size in options.input) or len(options.input) > 3:
        raise UserError(
            f"--input-shape {format_shape(options.input)}: give channels, height and width, or features, each at "
            "least 1"
        )
    fallback = VECTOR_SHAPE if find_family(model.network).input_kind(model.network) == VECTOR else IMAGE_SHAPE
    return model.network, options.input or fallback


def _write_table(path: Path, frame: pd.DataFrame, columns: Any, title: str, lines: list[str]) -> list[Path]:
    """Write a table with footnotes `lines`, and return its files."""
    label = f"tab:network-{re.sub(r'[^A-Za-z0-9.-]+', '-', path.parent.name)}-{path.name}"
    return tables.write_table(
        frame, path, columns=columns, caption=title, label=label, footnotes=lines, groups=["stage"]
    )
