"""The index of results maps folders to commands, and --name chooses a folder."""

import json
from pathlib import Path

import pytest

from analysis.output.results_index import choose_folder, write_index
from core.errors import UserError


def describe(folder: Path, command: str, **more: str) -> None:
    folder.mkdir(parents=True)
    (folder / "analysis.json").write_text(json.dumps({"command": command, "runs": [], "items": [], **more}))


def test_write_index_lists_commands_and_leaves_broken_descriptions_out(tmp_path: Path) -> None:
    describe(tmp_path / "freeze" / "b", "python run_ablation.py freeze --block 3 | less")
    describe(tmp_path / "compare" / "a", "python run_ablation.py compare")
    describe(tmp_path / "runs" / "c", "no analysis")
    for name, text in {"d": "{", "e": "[]", "f": '{"command": 3}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "analysis.json").write_text(text)
    write_index(tmp_path)
    rows = [line for line in (tmp_path / "index.md").read_text().splitlines() if line.startswith("| [")]
    assert [row.rpartition(" | ")[0] for row in rows] == [
        "| [compare/a](<compare/a>) | python run_ablation.py compare",
        r"| [freeze/b](<freeze/b>) | python run_ablation.py freeze --block 3 \| less",
    ]


def test_choose_folder_refuses_the_name_of_another_analysis(tmp_path: Path) -> None:
    assert choose_folder(tmp_path, "freeze/esc50-1234", "") == tmp_path / "freeze" / "esc50-1234"
    named = choose_folder(tmp_path, "freeze/esc50-1234", "mine")
    assert named == tmp_path / "freeze" / "mine"
    describe(named, "python run_ablation.py freeze", analysis="freeze/esc50-1234")
    assert choose_folder(tmp_path, "freeze/esc50-1234", "mine") == named
    with pytest.raises(UserError, match=r"--name mine: .*another command \(python run_ablation.py freeze\)"):
        choose_folder(tmp_path, "freeze/esc50-5678", "mine")
    describe(tmp_path / "freeze" / "esc50-5678", "python run_ablation.py freeze --seed 1")
    with pytest.raises(UserError, match="--seed 1"):
        choose_folder(tmp_path, "freeze/esc50-1234", "esc50-5678")


def test_choose_folder_of_a_study_compares_its_experiments(tmp_path: Path) -> None:
    describe(tmp_path / "studies" / "s" / "mine" / "figure-1", "study", analysis="studies/s/quick-12/figure-1")
    assert choose_folder(tmp_path, "studies/s/quick-12", "mine") == tmp_path / "studies" / "s" / "mine"
    with pytest.raises(UserError, match="another command"):
        choose_folder(tmp_path, "studies/s/quick-1", "mine")
