"""Options of the command ``samples``."""

from dataclasses import dataclass
from typing import ClassVar

from core.config.options import option


@dataclass(frozen=True)
class Samples:
    """Draw clips of every class as the network receives them, and save their waveforms as WAV files.

    Nothing is trained. All options of the network input apply, so that their effect can be seen and heard: the colours
    cover the range of values that the network receives. The clips are from the test fold and are always the same.

    Examples
    --------
    run_ablation.py samples
    run_ablation.py samples --per-class 2 --data urbansound8k --data-root DIR
    run_ablation.py samples --n-fft 1024 --hop-length 256 --colour viridis
    """

    runs: ClassVar[str] = "commands.samples.run:run"
    prepares: ClassVar[str] = "commands.samples.run:prepare"
    plans: ClassVar[bool] = True

    per_class: int = option(1, "Number of clips of each class.", at_least=1, at_most=100)
    time_axis: str = option("x", "Axis of the time in the figures: x or y.", choices=("x", "y"))
