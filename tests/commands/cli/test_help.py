import pytest

from ablations.planning.call import command_options
from commands import COMMANDS, grouped_commands
from commands.cli.command_line import read_call
from commands.cli.help import COMMON_OPTIONS


def print_help(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        read_call(line.split())
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_overview_lists_every_command_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    text = print_help("--help", capsys)
    named = [name for names in grouped_commands().values() for name in names]
    assert sorted(named) == sorted(COMMANDS)
    for word in (*grouped_commands(), *named):
        assert word in text


def test_help_shows_common_options_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    text = print_help("freeze --help", capsys)
    for flag in ("block", *COMMON_OPTIONS):
        assert f"--{flag}" in text
    for flag in ("momentum", "ray", "n-fft"):
        assert f"--{flag} " not in text
    assert text.count("python run_ablation.py freeze") >= 3
    assert len(text.splitlines()) < 80


def test_help_all_shows_every_option_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    text = print_help("freeze --help-all", capsys)
    options = command_options(COMMANDS["freeze"])
    for one in options:
        assert f"--{one.flag}" in text
        assert one.group in text


def test_help_shows_defaults_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(print_help("tune --help-all", capsys).split())
    assert "for validation, by group (0: none). (default: 0.2)" in text
    assert "--lr FLOAT ..." in text


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_help("--version", capsys).startswith("audio-ablation ")
