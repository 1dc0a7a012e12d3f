from pathlib import Path

import pytest

from commands import COMMANDS, options
from commands.experiment import commands
from commands.options import join_words, split_words
from commands.study import Study
from commands.study_file import Recipe, read_study, runnable, slug
from core.errors import UserError
from run_ablation import main

STUDY = """
title = "A report"
source = "Somebody 2020"
[scales.quick]
epochs = 3
[[experiments]]
item = "Figure 1"
command = "freeze"
[experiments.quick]
block = ["1", "2"]
"""


def written(folder: Path, text: str) -> Path:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "study.toml").write_text(text)
    return folder


def read(name: str, scale: str, given: dict[str, list[str]] | None = None, folder: Path | None = None) -> Recipe:
    return read_study(name, scale, given or {}, commands=commands(), folder=folder)


def test_options_of_the_command_line_replace_the_files(tmp_path: Path) -> None:
    study = read("mine", "quick", {"epochs": ["7"], "seed": ["0", "1"]}, written(tmp_path, STUDY))
    [experiment] = study.entries
    assert experiment.options == {"epochs": ["7"], "block": ["1", "2"], "seed": ["0", "1"]}
    assert (experiment.item, experiment.command) == ("Figure 1", "freeze")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "has the unknown key 'titel': did you mean 'title'?"),
        (("item =", "items ="), "has the unknown key 'items': did you mean 'item'?"),
        (('command = "freeze"', 'command = "freez"'), "unknown command in .*'freez': did you mean 'freeze'?"),
        (('item = "Figure 1"\n', ""), "lacks item"),
        (("[scales.quick]", "[scales.quick"), "mine/study.toml: "),
    ],
)
def test_mistakes_in_a_study_are_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        read("mine", "quick", {}, written(tmp_path, STUDY.replace(*change)))
    assert "\n" not in str(caught.value)


def test_unknown_study_and_scale_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown study 'rethinking-cn': did you mean 'rethinking-cnn'"):
        read("rethinking-cn", "quick")
    with pytest.raises(UserError, match="unknown scale of rethinking-cnn: 'quik': did you mean 'quick'"):
        read("rethinking-cnn", "quik")


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("scale", ["full", "quick"])
def test_every_study_has_only_options_that_its_commands_take(name: str, scale: str) -> None:

    for experiment in read(name, scale).entries:
        made = options.option_class(COMMANDS[experiment.command])
        options.parse({experiment.command: made}, [experiment.command, *join_words(experiment.options)])


def test_words_are_split_by_flag_and_joined_again() -> None:
    known = options.flags(options.option_class(Study))
    words = ["--seed", "0", "1", "--data", "esc50", "--compile"]
    assert split_words(words, known) == {"seed": ["0", "1"], "data": ["esc50"], "compile": []}
    assert join_words(split_words(words, known)) == words
    assert split_words(["rethinking-cnn", "--lr=1e-4"], known) == {"lr": ["1e-4"]}
    last = ["--scale", "quick", "--dry-run", "--results", "R", "rethinking-cnn"]
    assert split_words(last, known) == {"scale": ["quick"], "dry-run": [], "results": ["R"]}


def test_slug_names_a_folder() -> None:
    assert [slug(item) for item in ("Figure 2a", "Model Cutoff")] == ["figure-2a", "model-cutoff"]


def test_quick_study_answers_every_item_and_never_overwrites_another(sounds: Path, tmp_path: Path) -> None:
    def study(command: str, *more: str) -> int:
        small = ["--sr", "8000", "--duration", "0.5", "--n-mels", "32", "--n-frames", "32", "--epochs", "1"]
        where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path), "--device", "cpu"]
        named = ["--for", "rethinking-cnn"] if command == "figures" else ["rethinking-cnn"]
        return main([command, *named, "--scale", "quick", *where, *small, "--threads", "1", *more])

    home = tmp_path / "studies" / "rethinking-cnn"
    assert study("study") == 0
    [folder] = home.iterdir()
    page = (folder / "study.md").read_text()
    for item in [e.item for e in read("rethinking-cnn", "quick").entries] + ["Table III"]:
        assert f"## {item}\n" in page
        assert list((folder / slug(item)).glob("*.tex"))
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert study("figures", "--seed", "1") == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    [other] = set(home.iterdir()) - {folder}
    assert "missing (1 of 1)" in (other / "study.md").read_text()
