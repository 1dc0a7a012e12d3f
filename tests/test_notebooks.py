"""Executes the code cells of every notebook in examples/, in order."""

import ast
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ablations

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))
FORMATS = ("_repr_png_", "_repr_html_", "__repr__")  # methods with which a notebook displays a value


def read_notebook(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def execute_notebook(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Execute the code cells; return their namespace, and the format in which the last value of each is displayed."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    displayed = []
    for cell in read_notebook(path)["cells"]:
        if cell["cell_type"] != "code":
            continue
        file = f"{path.name}:{cell['id']}"
        statements = ast.parse("".join(cell["source"]), file).body
        last = statements.pop() if isinstance(statements[-1], ast.Expr) else None
        exec(compile(ast.Module(statements, []), file, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), file, "eval"), namespace)
            format = next(format for format in FORMATS if hasattr(value, format))
            assert getattr(value, format)()
            displayed.append(format)
    return namespace, displayed


def test_examples_have_three_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["open_results", "own_arrays", "run_an_ablation"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    namespace, displayed = execute_notebook(path)
    if path.stem == "run_an_ablation":
        assert {"_repr_png_", "_repr_html_"} <= set(displayed)
    if path.stem == "open_results":  # data_root and columns are for own data, and these clips are embedded
        results = ablations.open_results(namespace["RESULTS"], data_root=tmp_path, columns="label=class")
        np.testing.assert_array_equal(results.run(namespace["run"].id).inputs(), namespace["inputs"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_outputs(path: Path) -> None:
    notebook = read_notebook(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]


def test_cell_that_raises_fails(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "id": str(k), "source": [text]} for k, text in enumerate(("x = 1", "assert x == 2"))]
    (tmp_path / "wrong.ipynb").write_text(json.dumps({"cells": cells}))
    with pytest.raises(AssertionError):
        execute_notebook(tmp_path / "wrong.ipynb")
