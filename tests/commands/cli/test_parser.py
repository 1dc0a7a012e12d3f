from collections import Counter

import pytest

from ablations.freeze import Freeze
from ablations.planning.call import Call, command_options, make_call
from ablations.planning.grid import make_grid, read_execution_options, read_preset_option
from commands import COMMANDS
from commands.cli.parser import read_command_line
from commands.predict.options import Predict
from commands.study.options import Study
from core.errors import UserError


def read(line: str) -> Call:
    return read_command_line({"freeze": Freeze, "study": Study, "predict": Predict}, line.split())


def test_make_grid_several_values_gives_their_product() -> None:
    call = read("freeze --block stem 2 --lr 1e-3 1e-4 --fold 1 all --seed 0 1")
    assert call.command.block == ("stem", "2")
    points = make_grid(call)
    assert len(points) == 8
    assert points[0] == {"data__fold": "1", "training__lr": 1e-3, "seed": 0}
    assert points[-1] == {"data__fold": "all", "training__lr": 1e-4, "seed": 1}


def test_make_grid_without_options_is_one_point() -> None:
    assert make_grid(read("freeze")) == [{"seed": 0}]


def test_make_grid_switch_or_tuple_is_one_value() -> None:
    assert make_grid(read("freeze --compile --no-channels-last --milestones 3 5")) == [
        {"training__compile": True, "training__channels_last": False, "training__milestones": (3, 5), "seed": 0}
    ]


def test_make_grid_typed_value_is_stored_value() -> None:
    (point,) = make_grid(read("freeze --augment stretch-pitch"))
    assert point["training__augment"] == "waveform"


def test_read_execution_options_returns_given_values() -> None:
    options = read_execution_options(read("freeze --results r --threads 2 --json --data-root a b"))
    assert (str(options.results), options.threads, options.json, [str(p) for p in options.data_root]) == (
        "r",
        2,
        True,
        ["a", "b"],
    )


def test_read_command_line_accepts_underscores_and_equals_signs() -> None:
    assert make_grid(read("freeze --batch_size=8")) == [{"training__batch_size": 8, "seed": 0}]


def test_read_command_line_value_without_flag_is_positional() -> None:
    call = read("study --scale quick --dry-run --results R genres")
    assert (call.command.name, call.command.scale) == ("genres", "quick")
    assert call.words == {"study": ["genres"], "scale": ["quick"], "dry-run": [], "results": ["R"]}
    assert [str(path) for path in read("predict a b --run 1").command.paths] == ["a", "b"]


def test_make_call_from_words_gives_the_same_call() -> None:
    call = read("freeze --block 3 --no-channels-last --lr 0.1 1")
    again = make_call("freeze", Freeze, call.words)
    assert (again.command, again.values) == (call.command, call.values)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("freez", "unknown command 'freez': did you mean 'freeze'"),
        ("freeze --blok 3", "unknown option '--blok' of freeze: did you mean '--block'"),
        ("freeze --epochs 1.5", "--epochs 1.5: give a whole number"),
        ("freeze --augment waveform", "--augment waveform: choose from none, stretch-pitch"),
        ("freeze 3", "unexpected argument '3'; did you mean --block 3?"),
        ("freeze --device cpu cuda", "unexpected argument 'cuda'; --device takes one value"),
        ("freeze --lr=1e-3 1e-4", "unexpected argument '1e-4'; did you mean --lr 1e-3 1e-4?"),
        ("freeze --block 2 --block 3", "--block is given twice"),
    ],
)
def test_read_command_line_invalid_word_is_one_line(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("freeze --on-bad-clip skp", "--on-bad-clip skp: did you mean 'skip'"),
        ("freeze --storage s3://bucket", "--storage needs --ray"),
    ],
)
def test_read_execution_options_invalid_value_raises(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_execution_options(read(line))


def test_read_preset_option_unknown_name_raises() -> None:
    with pytest.raises(UserError, match="unknown preset 'papr': did you mean 'paper'"):
        read_preset_option(read("freeze --preset papr"))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_options_flags_are_unique(name: str) -> None:
    found = Counter(one.flag for one in command_options(COMMANDS[name]))
    assert [flag for flag, count in found.items() if count > 1] == []
