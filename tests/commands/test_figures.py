"""`figures` redraws finished results in the style of a paper, and computes nothing."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import matplotlib.image
import msgspec
import pandas as pd
import pytest
from small_runs import SMALL

from analysis.output.paper_style import FigureStyle, PaperStyle, TableStyle
from core.errors import UserError
from core.training import trainer
from run_ablation import main

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "paper.toml"


@pytest.fixture(scope="module")
def finished(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of a small `freeze` on two folds."""
    results = tmp_path_factory.mktemp("results")
    words = ["--block", "3", "--fold", "1", "2", "--data", "folder", "--data-root", str(sounds), *SMALL]
    assert main(["freeze", *words, "--results", str(results)]) == 0
    return results


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the tables and figures without their runs; training fails."""
    (source,) = (finished / "freeze").iterdir()
    shutil.copytree(source, tmp_path / "results" / "freeze" / "copy")
    monkeypatch.setattr(trainer, "train_run", lambda *args, **kwargs: pytest.fail("figures trains"), raising=False)
    return tmp_path / "results" / "freeze" / "copy"


def write_style(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "style.toml"
    file.write_text(text)
    return file


def test_example_style_changes_tables_figures_and_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["figures", str(folder), "--style", str(EXAMPLE)]) == 0
    assert re.search(r"\d+ tables and [3-9] figures redrawn\n", capsys.readouterr().out)
    table = (folder / "table.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert [rows[0], *rows[2:]] == ["Frozen", "Blocks 1 to 3", "Nothing frozen"]
    header = next(line for line in table.splitlines() if line.startswith("| Frozen"))
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["Frozen", "Accuracy %", "Change", "p"]
    assert "Results of the last epoch" in table
    assert "Results of the last epoch" not in (folder / "comparisons.md").read_text()
    latex = (folder / "table.tex").read_text()
    assert "\\caption{Accuracy on the test fold when the first blocks are frozen.}" in latex
    assert "\\label{tab:freezing}" in latex and "resizebox" not in latex
    figure = (folder / "figure.tex").read_text()
    assert "\\label{fig:freezing}" in figure and "\\includegraphics{figure.pdf}" in figure
    height, width = matplotlib.image.imread(folder / "figure.png").shape[:2]
    assert (width, height) == pytest.approx((8.4 / 2.54 * 300, 5.5 / 2.54 * 300), abs=2)
    assert b"DejaVuSerif" in (folder / "figure.pdf").read_bytes()
    entry = next(
        item for item in json.loads((folder / "analysis.json").read_text())["items"] if item["name"] == "table"
    )
    assert entry["caption"].startswith("Accuracy on the test fold when")
    assert [row[0]["text"] for row in entry["cells"]["rows"]] == rows[2:]
    csv = [name for name in before if name.endswith(".csv")]
    assert csv and all((folder / name).read_bytes() == before[name] for name in csv)

    assert main(["figures", str(folder)]) == 0  # the default style again
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_style_of_the_command_is_that_of_figures(finished: Path, folder: Path, sounds: Path, tmp_path: Path) -> None:
    """A command with --style writes the same files as `figures` with this style; nothing else is trained."""
    words = ["--block", "3", "--fold", "1", "2", "--data", "folder", "--data-root", str(sounds), *SMALL]
    output = tmp_path / "output"
    more = ["--results", str(finished), "--output", str(output), "--name", "copy", "--style", str(EXAMPLE)]
    assert main(["freeze", *words, *more]) == 0
    assert main(["figures", str(folder), "--style", str(EXAMPLE), "--output", str(tmp_path / "redrawn")]) == 0
    for file in (tmp_path / "redrawn").iterdir():
        written = (output / "freeze" / "copy" / file.name).read_bytes()
        if file.suffix != ".tex":  # labels contain the name of the folder
            assert file.read_bytes() == written, file.name
    assert not (tmp_path / "redrawn" / "analysis.json").exists()


def test_panels_are_chosen_and_ordered(folder: Path, tmp_path: Path) -> None:
    style = write_style(
        tmp_path, '[figures.learning]\npanels = ["train_loss"]\n[figures.confusion]\npanels = ["block3"]'
    )
    before = {name: matplotlib.image.imread(folder / f"{name}.png").shape for name in ("learning", "confusion")}
    assert main(["figures", str(folder), "--style", str(style)]) == 0
    after = {name: matplotlib.image.imread(folder / f"{name}.png").shape for name in before}
    assert after == before  # the figures have the same size
    assert "none" in (folder / "confusion.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colors = ['#000000']", "--style .*style.toml: unknown key 'colors': did you mean 'colours'?"),
        ("[tables.table]\ncolumn = ['p']", r"\[tables.table\]: unknown key 'column': did you mean 'columns'?"),
        ("[tables.tabel]\nfootnotes = true", "unknown table in --style: 'tabel': did you mean 'table'"),
        ("[figures.figur]\nlabel = 'x'", "unknown figure in --style: 'figur': did you mean 'figure'"),
        ("[tables.table]\ncolumns = ['acuracy']", "unknown column of the table table in --style: 'acuracy': did you "),
        (
            "[figures.learning]\npanels = ['train_los']",
            "unknown panel of the figure learning .*did you mean 'train_loss",
        ),
        ("[figures.figure]\npanels = ['block3']", "the figure figure has one panel"),
        ("font = 'DejaVu Serf'", "unknown font in --style: 'DejaVu Serf': did you mean 'DejaVu Serif'"),
        ("colours = ['blu']", "colours: 'blu' is no colour such as '#0072B2'"),
        ("width_cm = 'wide'", "width_cm"),
        ("width_cm = 600.0", "width_cm"),
        ("[tables.table]\nlabel = 'a b'", "label 'a b': use letters"),
        ("width_cm = ", "--style .*style.toml"),
    ],
)
def test_mistake_in_a_style_is_one_line(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    with pytest.raises(UserError, match=message) as caught:
        main(["figures", str(folder), "--style", str(write_style(tmp_path, text))])
    assert "\n" not in str(caught.value)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no results that can be redrawn"):
        main(["figures", str(tmp_path)])
    with pytest.raises(UserError, match="needs the folder of results"):
        main(["figures"])


def test_damaged_description_is_refused(folder: Path) -> None:
    items = json.loads((folder / "redraw.json").read_text())
    for change in ({"draw": "os:remove"}, {"draw": "analysis.plots.by_condition:nothing"}, {"frame": 3}):
        (folder / "redraw.json").write_text(json.dumps([{**item, **change} for item in items]))
        with pytest.raises(UserError, match="redraw.json"):
            main(["figures", str(folder)])


def test_metrics_name_and_index(
    finished: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second command with other metrics does not overwrite the first; --name and the index name the folders."""
    words = ["--block", "3", "--fold", "1", "2", "--data", "folder", "--data-root", str(sounds), *SMALL]
    words = ["freeze", *words, "--results", str(finished)]
    (first,) = (finished / "freeze").iterdir()
    before = (first / "table.md").read_bytes()
    assert main([*words, "--metric", "f1"]) == 0
    style = write_style(tmp_path, "[tables.tabel]\nfootnotes = true")
    assert main([*words, "--name", "mine", "--style", str(style)]) == 0
    assert "note: unknown table in --style: 'tabel': did you mean 'table'" in capsys.readouterr().out
    assert (first / "table.md").read_bytes() == before
    assert sorted(path.name for path in (finished / "freeze").iterdir()) == sorted(
        [first.name, f"{first.name}-f1", "mine"]
    )
    assert "F1 %" in (first.with_name(f"{first.name}-f1") / "table.md").read_text()
    labels = [re.findall(r"\\label{(.*)}", path.read_text()) for path in finished.rglob("*.tex")]
    assert len(labels) == len({label for (label,) in labels})
    assert "--name mine" in (finished / "index.md").read_text()
    with pytest.raises(UserError, match="--name mine: .* another command"):
        main([*words, "--seed", "1", "--name", "mine"])
    with pytest.raises(UserError, match="--name a/b: use up to"):
        main([*words, "--name", "a/b"])
    shutil.rmtree(finished / "freeze" / "mine")
    shutil.rmtree(first.with_name(f"{first.name}-f1"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_narrow_tables_compile_in_two_columns(folder: Path, tmp_path: Path) -> None:
    files = [file for file in folder.glob("*.tex") if not file.stem.endswith("-full")]
    tables = [file.read_text() for file in files]
    narrow = [text for text in tables if "\\begin{table}" in text]
    assert len(narrow) >= 2 and not any("resizebox" in text for text in narrow)
    packages = "\\usepackage{booktabs,graphicx}"
    document = f"\\documentclass[twocolumn]{{article}}{packages}\\begin{{document}}{''.join(tables)}\\end{{document}}"
    (folder / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    printed = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    assert b"Overfull" not in printed and b"multiply" not in printed


def test_csv_has_the_full_table(folder: Path) -> None:
    table = pd.read_csv(folder / "table.csv")
    assert {"accuracy_best_epoch", "macro_f1", "trainable_parameters", "p"} <= set(table)
    assert "Best epoch" in (folder / "table-full.md").read_text()


def test_guide_and_example_have_every_key() -> None:
    guide, example = (ROOT / "docs" / "guide.md").read_text(), tomllib.loads(EXAMPLE.read_text())
    kinds = {"tables": TableStyle, "figures": FigureStyle}
    fields = [name for kind in (PaperStyle, *kinds.values()) for name in msgspec.structs.fields(kind)]
    table = guide[guide.index("### Style of a paper") :].partition("NAME is the name")[0]
    assert [field.name for field in fields if f"`{field.name}`" not in table and f"[{field.name}" not in table] == []
    assert set(example) == {field.name for field in msgspec.structs.fields(PaperStyle)}
    for name, kind in kinds.items():
        keys = {key for part in example[name].values() for key in part}
        assert keys == {field.name for field in msgspec.structs.fields(kind)}
