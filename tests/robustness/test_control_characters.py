"""Control characters in names of files and folders reach no terminal, table or page."""

from pathlib import Path

import pandas as pd
import pytest
from small_runs import fill_options

from analysis.output.number_format import to_csv
from commands.cli.console import EscapingConsole
from core.errors import escape_controls
from run_ablation import main

NAMES = {
    "colour": "a\x1b[31mb",
    "title of the window": "a\x1b]0;title\x07b",
    "clear the screen": "\x1b[2J\x1b[H",
    "carriage return": "right\rwrong",
    "backspace": "ab\x08\x08c",
    "c1 code": "a\x9b31mb",
    "delete": "a\x7fb",
    "right to left": "a\u202egpj.exe",
    "isolate": "a\u2066b\u2069",
    "null": "a\x00b",
}
STRIPPED = set("\x07\x08\x0b\x0c\r")  # by rich itself
UNSAFE = {chr(code) for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


@pytest.mark.parametrize("name", NAMES)
def test_console_and_tables_escape_control_characters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = NAMES[name]
    EscapingConsole(soft_wrap=True).print(f"Results: {text}", markup=False)
    printed = capsys.readouterr().out
    written = to_csv(pd.DataFrame({"class": [text], text: [1]}))
    for shown in (printed, written, escape_controls(text)):
        assert not (UNSAFE - {"\n"}) & set(shown)
    escaped = escape_controls(text)
    assert escaped in written
    assert escaped in printed or STRIPPED & set(text)


def test_console_keeps_colours_of_its_own() -> None:
    console = EscapingConsole(force_terminal=True, color_system="standard", width=40)
    with console.capture() as capture:
        console.print("[red]a\x1b[31mb[/red]")
    assert capture.get() == "\x1b[31ma\\x1b[31mb\x1b[0m\n"


def test_no_output_of_a_command_has_control_characters(
    sounds: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "net\x1b[31m.py"
    network.write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(4, num_classes)))\n"
    )
    results = tmp_path / "results\x1b[2J"
    data = ["--data", "folder", "--data-root", str(sounds), "--results", str(results)]
    backbone = ["--backbone", f"{network}:make", "--weights", "random"]
    assert main(["freeze", *fill_options(["--block", "none", *backbone, *data])]) == 0
    assert main(["network", *backbone, "--input-shape", "3", "32", "32"]) == 0
    assert main(["report", "--results", str(results)]) == 0
    printed = capfd.readouterr()
    for text in (printed.out, printed.err):
        assert "\x1b" not in text
    assert "net\\x1b[31m.py" in printed.out
    files = [path for path in results.rglob("*") if path.suffix in (".csv", ".md", ".tex", ".html")]
    assert len(files) > 5
    assert not [path.name for path in files if "\x1b" in path.read_text()]
