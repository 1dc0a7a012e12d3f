"""Executes every example of docs/extending.md: the code is put into the file that the page names, and run."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_runs import SMALL

from core.registry import Registry
from run_ablation import main

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
MAX_LINES = 20  # of an example


@dataclass(frozen=True)
class Example:
    """One example: its file and code, and the registry entry that the page names."""

    file: str
    code: str
    registry: str
    name: str
    target: str


def _examples() -> dict[str, Example]:
    pattern = (
        r"\*\*(?P<what>[^*]+)\*\*(?:(?!\*\*).)*?In\s`(?P<file>[^`]+)`,\swith\sthe\sline\s"
        r"`\"(?P<name>[^\"]+)\":\s\"(?P<target>[^\"]+)\"`\sin\s`(?P<registry>[^`]+)`:\s+```python\n(?P<code>.*?)```"
    )
    found = re.finditer(pattern, PAGE, flags=re.DOTALL)
    return {m["what"]: Example(m["file"], m["code"], m["registry"], m["name"], m["target"]) for m in found}


EXAMPLES = _examples()


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes an example to its file and adds its registry entry."""

    def add_example(what: str) -> str:
        example = EXAMPLES[what]
        file = tmp_path / "added" / example.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(example.code)
        package = importlib.import_module(".".join(Path(example.file).parent.parts))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
        registries = importlib.import_module(".".join(Path(example.registry).parent.parts))
        (registry,) = (value for value in vars(registries).values() if _takes(value, example.file))
        monkeypatch.setitem(registry.entries, example.name, example.target)
        return example.name

    return add_example


def _takes(value: object, file: str) -> bool:
    package = ".".join(Path(file).parent.parts)
    return isinstance(value, Registry) and all(target.startswith(package) for target in value.entries.values())


def table_of(results: Path, command: str) -> pd.DataFrame:
    (file,) = results.glob(f"{command}/*/table.csv")
    return pd.read_csv(file)


def test_page_has_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == {"An ablation", "A data set", "An input", "A network"}
    for example in EXAMPLES.values():
        assert len(example.code.splitlines()) <= MAX_LINES
        compile(example.code, example.file, "exec")


def test_added_ablation_runs(add, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add("An ablation")
    monkeypatch.setitem(importlib.import_module("commands").COMMANDS.entries, name, EXAMPLES["An ablation"].target)
    words = [name, "--factor", "1", "5", "--data", "folder", "--data-root", str(sounds), *SMALL]
    assert main([*words, "--results", str(tmp_path)]) == 0
    assert table_of(tmp_path, name)["condition"].tolist() == ["all", "head x1", "head x5"]


def test_added_report_runs(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(
        r"\*\*A report\*\*.*?In\s`ablations/studies/([^`]+)/`.*?```toml\n(.*?)```.*?```csv\n(.*?)```", PAGE, re.DOTALL
    )
    assert found
    name, text, published = found.groups()
    assert len(text.splitlines()) <= MAX_LINES
    (tmp_path / "studies" / name).mkdir(parents=True)
    (tmp_path / "studies" / name / "study.toml").write_text(text)
    (tmp_path / "studies" / name / "published.csv").write_text(published)
    monkeypatch.setattr(importlib.import_module("ablations"), "STUDIES_FOLDER", tmp_path / "studies")
    words = ["--data", "folder", "--data-root", str(sounds), "--published-dataset", "claps", *SMALL]
    assert main(["study", name, "--scale", "quick", *words, "--results", str(tmp_path / "results")]) == 0
    (folder,) = (tmp_path / "results").glob(f"studies/{name}/*/table-1")
    [number] = pd.read_csv(folder / "published-numbers.csv").to_dict("records")
    assert number["published"] == 0.9139
    assert 0 <= number["ours"] <= 1
    assert number["differs_in"] == "data declared as claps, epochs 1 instead of 70"
    assert pd.read_csv(folder / "statements.csv")["finding"].tolist() == ["not clear"]  # single runs


def test_added_data_set_runs(add, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = add("A data set")
    for k, source in enumerate(sorted(sounds.rglob("*.wav"))[:20]):
        (tmp_path / "claps").mkdir(exist_ok=True)
        (tmp_path / "claps" / f"{('clap', 'snap')[k // 10]}-{k}.wav").write_bytes(source.read_bytes())
    root = ["--data", name, "--data-root", str(tmp_path / "claps")]
    assert main(["data", *root, "--results", str(tmp_path)]) == 0
    assert "no groups: every clip counts as a separate recording" in " ".join(capsys.readouterr().out.split())
    assert main(["freeze", "--block", "4", *root, *SMALL, "--results", str(tmp_path)]) == 0
    assert table_of(tmp_path, "freeze")["data"].tolist() == [name, name]


def test_added_input_runs(add, sounds: Path, tmp_path: Path) -> None:
    name = add("An input")
    words = ["freeze", "--block", "4", "--input", name, "--data", "folder", "--data-root", str(sounds), *SMALL]
    assert main([*words, "--results", str(tmp_path)]) == 0
    assert len(table_of(tmp_path, "freeze")) == 2
    (array,) = tmp_path.glob("cache/images/*/array.npy")
    assert np.load(array).shape == (30, 3, 129, 32)


def test_added_network_runs(add, sounds: Path, tmp_path: Path) -> None:
    name = add("A network")
    words = ["cutoff", "--backbone", name, "--weights", "random", "--data", "folder", "--data-root", str(sounds)]
    assert main([*words, *SMALL, "--results", str(tmp_path)]) == 0
    table = table_of(tmp_path, "cutoff")
    assert table.set_index("condition")["parameters"].to_dict() == {
        "block2": 3 * 8 * 9 + 8 * 16 * 9 + 16 * 32 * 9 + 3 * (8 + 16 + 32) + 32 * 3 + 3,
        "stem": 3 * 8 * 9 + 3 * 8 + 8 * 3 + 3,
        "block1": 3 * 8 * 9 + 8 * 16 * 9 + 3 * (8 + 16) + 16 * 3 + 3,
    }
