"""Options of the command ``figures``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.execution import ExecutionOptions
from core.config.options import copy_option, option


@dataclass(frozen=True)
class Figures:
    """Redraw the tables and figures of a folder of results in the style of a paper.

    Nothing is trained, measured or computed: the numbers are those of the folder, and no run is needed. The CSV files
    stay as they are. Without --style the default style is used again. Attribution maps and images of inputs are not
    redrawn; give --style to their commands instead. examples/paper.toml explains every key of a style.

    Examples
    --------
    run_ablation.py figures results/freeze/esc50-resnet18-3fbfc0e4 --style examples/paper.toml
    run_ablation.py figures results/freeze/esc50-resnet18-3fbfc0e4 --style paper.toml --output paper/figures
    """

    runs: ClassVar[str] = "commands.figures.run:run"

    folder: Path | None = option(
        None, "Folder of results, such as results/freeze/NAME; all folders inside it are redrawn.", positional=True
    )
    style: Path | None = copy_option(ExecutionOptions, "style")
    output: Path | None = option(None, "Write the tables and figures to this folder, and leave FOLDER as it is.")
