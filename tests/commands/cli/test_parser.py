import dataclasses
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from ablations.freeze import Freeze
from commands import COMMANDS as ALL
from commands.cli import parser
from commands.cli.words import flags
from core.errors import UserError

COMMANDS = {"freeze": parser.option_class(Freeze)}


def parsed(line: str) -> object:
    return parser.parse(COMMANDS, line.split())[1]


def test_grid_is_the_product_of_the_values_in_order() -> None:
    chosen = parsed("freeze --block stem 2 --lr 1e-3 1e-4 --fold 1 all --seed 0 1")
    assert chosen.block == ("stem", "2")  # type: ignore[attr-defined]
    points = parser.grid(chosen)
    assert len(points) == 8
    assert points[0] == {"data__fold": "1", "training__lr": 1e-3, "seed": 0}
    assert points[-1] == {"data__fold": "all", "training__lr": 1e-4, "seed": 1}


def test_grid_without_options_is_one_default_point() -> None:
    assert parser.grid(parsed("freeze")) == [{"seed": 0}]


def test_grid_keeps_flags_and_tuples_whole() -> None:
    points = parser.grid(parsed("freeze --compile --no-channels-last --milestones 3 5"))
    assert points == [
        {"training__compile": True, "training__channels_last": False, "training__milestones": (3, 5), "seed": 0}
    ]


def test_execution_reads_its_options() -> None:
    made = parser.execution(parsed("freeze --results r --threads 2 --json --data-root a b"))
    assert (str(made.results), made.threads, made.json, [str(p) for p in made.data_root]) == ("r", 2, True, ["a", "b"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("freez", "unknown command 'freez': did you mean 'freeze'? choose from freeze"),
        ("freeze --blok 3", "unknown option '--blok' of freeze: did you mean '--block'?"),
        ("freeze --data --fold 1", "--data needs a value; see `run_ablation.py freeze --help`"),
        ("freeze --data", "--data needs a value; see `run_ablation.py freeze --help`"),
        ("freeze --lr 1e-3 fast", "--lr fast: give a number"),
        ("freeze --epochs 1.5", "--epochs 1.5: give a whole number"),
        ("freeze --gpus-per-trial half", "--gpus-per-trial half: give a number"),
        ("freeze --image 3 x", "--image x: give a whole number"),
        (
            "freeze 3",
            "'3' belongs to no option of freeze: values stand behind theirs; see `run_ablation.py freeze --help",
        ),
        ("freeze -x", "'-x' belongs to no option of freeze"),
        ("freeze --precision bf16 fp16 --device cpu cuda", "'cuda' belongs to no option of freeze"),
        ("freeze --lr=1e-3 1e-4", "'1e-4' belongs to no option of freeze"),
        ("freeze --json=3", "--json=3: --json takes no value"),
    ],
)
def test_parse_bad_words_raise_one_line(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?") if "\\" not in message else message) as caught:
        parsed(line)
    assert "\n" not in str(caught.value)


def test_execution_bad_value_raises() -> None:
    with pytest.raises(UserError, match="--on-bad-clip skp: did you mean 'skip'"):
        parser.execution(parsed("freeze --on-bad-clip skp"))


def test_preset_unknown_raises() -> None:
    with pytest.raises(UserError, match="unknown preset 'papr': did you mean 'paper'"):
        parser.preset(parsed("freeze --preset papr"))


def test_help_names_every_group_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("freeze --help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("--block", "data options", "model options", "training options", "execution options", "0.001"):
        assert word in text


@pytest.mark.parametrize("name", ALL)
def test_no_option_of_a_command_has_the_name_of_another(name: str) -> None:
    """The parser itself would only say so when the command is used."""
    made = parser.option_class(ALL[name])
    found: Counter[str] = Counter()
    for f in dataclasses.fields(made):
        alone = dataclasses.make_dataclass("Alone", [(f.name, f.type, dataclasses.field(default=f.default))])
        found.update(flags(f.type if dataclasses.is_dataclass(f.type) else alone).keys())
    assert [flag for flag, count in found.items() if count > 1] == []


@pytest.mark.parametrize(
    "environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "TERM": "dumb"}], ids=["utf-8", "ascii"]
)
def test_what_only_the_parser_refuses_is_one_line_too(environment: dict[str, str]) -> None:
    """It draws a box around it, of other characters where the terminal's encoding has none for frames."""
    code = """
from dataclasses import dataclass
from typing import Literal
from commands import options

@dataclass
class Pick:
    which: Literal["a", "b"] = "a"

try:
    options.parse({"pick": Pick}, ["pick", "--which", "c"])
except options.UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    assert re.fullmatch(r"pick: .*--which.*; see `run_ablation.py pick --help`\n", done.stdout), done.stdout
