"""The Python file of a user's network cannot change other runs, end the command with status 0 or break ``--json``."""

import dataclasses
import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from small_runs import SMALL, SMALL_SETTINGS

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import execute
from core.models.backbone import build_backbone
from core.plan import Plan, PlannedRun, resolve
from core.session import Session
from core.store.record import FAILED, Record
from run_ablation import main

NET = """
import asyncio, os, random, sys
import numpy as np
import torch
from torch import nn
AT_IMPORT

class Odd(nn.Module):
    def forward(self, x):
        if self.training and len(x) > 2:
            IN_FORWARD
            pass
        return x

def make(num_classes):
    IN_MAKE
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Odd(), nn.Linear(4, num_classes)),
    )
"""
SETTINGS: dict[str, tuple[str, Callable[[], object]]] = {  # statement that changes a global setting, and its value
    "mkldnn": ("torch.backends.mkldnn.set_flags(False)", lambda: torch.backends.mkldnn.enabled),
    "cudnn": ("torch.backends.cudnn.benchmark = True", lambda: torch.backends.cudnn.benchmark),
    "tf32": ("torch.backends.cuda.matmul.allow_tf32 = True", lambda: torch.backends.cuda.matmul.allow_tf32),
    "precision": ("torch.set_float32_matmul_precision('medium')", torch.get_float32_matmul_precision),
    "deterministic": ("torch.use_deterministic_algorithms(True)", torch.are_deterministic_algorithms_enabled),
    "anomaly": ("torch.autograd.set_detect_anomaly(True)", torch.is_anomaly_enabled),
    "threads": ("torch.set_num_threads(3)", torch.get_num_threads),
    "attention": ("torch.backends.cuda.enable_math_sdp(False)", torch.backends.cuda.math_sdp_enabled),
    "autocast": ("torch.set_autocast_enabled('cpu', True)", lambda: torch.is_autocast_enabled("cpu")),
    "numpy errors": ("np.seterr(all='raise')", np.geterr),
    "numpy random": ("np.random.seed(0)", lambda: np.random.get_state()[1].tobytes()),  # noqa: NPY002
    "random": ("random.seed(0)", random.getstate),
    "matplotlib": ("import matplotlib; matplotlib.rcParams['text.usetex'] = True", lambda: mpl.rcParams["text.usetex"]),
    "gradients": ("torch.set_grad_enabled(False)", torch.is_grad_enabled),
    "dtype": ("torch.set_default_dtype(torch.float64)", torch.get_default_dtype),
    "device": ("torch.set_default_device('meta')", torch.get_default_device),
}
ONLY_BEFORE_TRAINING = ("gradients", "dtype", "device", "autocast", "anomaly")  # training itself would fail with them


def write_network(folder: Path, **code: str) -> str:
    """Write a network with statements at import, in `make` or in the forward pass; return the name of the backbone."""
    text = NET
    for place in ("AT_IMPORT", "IN_FORWARD", "IN_MAKE"):
        text = text.replace(place, code.get(place.lower(), "pass"))
    (folder / "net.py").write_text(text)
    return f"{folder / 'net.py'}:make"


def train(dataset: Dataset, session: Session, **model: str) -> Run:
    """Train a run for one epoch."""
    settings = SMALL_SETTINGS | {f"model__{name}": value for name, value in model.items()}
    run = resolve(Run().replace(**settings), dataset, dataset.compute_fingerprint(session.store.cache))
    execute(Plan("compare", (PlannedRun("net", run, run),), {run.data.content: dataset}), session)
    return run


def train_network(name: str, dataset: Dataset, session: Session) -> Record:
    """Train a user's network for one epoch; return its record."""
    record = session.store.record(train(dataset, session, backbone=name, weights="random"))
    assert record
    return record


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("place", ["at_import", "in_make"])
def test_settings_changed_while_building_are_restored(setting: str, place: str, tmp_path: Path) -> None:
    statement, read = SETTINGS[setting]
    before = read()
    with suppress(UserError):  # a network on another device or with another type is refused
        build_backbone(write_network(tmp_path, **{place: statement}), 3, weights="random")
    assert read() == before


def test_settings_changed_by_forward_pass_are_restored(dataset: Dataset, session: Session, tmp_path: Path) -> None:
    names = [name for name in SETTINGS if name not in ONLY_BEFORE_TRAINING]
    before = [SETTINGS[name][1]() for name in names]
    code = "; ".join(SETTINGS[name][0] for name in names)
    assert train_network(write_network(tmp_path, in_forward=code), dataset, session).finished
    assert [SETTINGS[name][1]() for name in names] == before


@pytest.mark.parametrize(
    "statement", ["sys.exit(0)", "raise BaseException('x')", "raise GeneratorExit", "raise asyncio.CancelledError"]
)
def test_network_that_exits_is_refused_or_fails(
    statement: str, dataset: Dataset, session: Session, tmp_path: Path
) -> None:
    for place in ("at_import", "in_make"):
        folder = tmp_path / place
        folder.mkdir()
        with pytest.raises(UserError, match=r"raises (SystemExit|BaseException|GeneratorExit|CancelledError)"):
            build_backbone(write_network(folder, **{place: statement}), 3, weights="random")
    record = train_network(write_network(tmp_path, in_forward=statement), dataset, session)
    assert (record.status, "the network raised" in record.reason) == (FAILED, True)


def test_error_without_text_is_named(dataset: Dataset, session: Session, tmp_path: Path) -> None:
    bad = "exec('class Bad(Exception):\\n def __str__(self): raise ValueError'); raise locals()['Bad']"
    with pytest.raises(UserError, match=r"net\.py:make: it raises Bad"):
        build_backbone(write_network(tmp_path, in_make=bad), 3, weights="random")
    record = train_network(write_network(tmp_path, in_forward=bad), dataset, session)
    assert (record.status, record.reason) == (FAILED, "Bad")


def test_property_that_raises_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    @property\n    def stages(self): raise KeyError('gone')\n"
        "def make(num_classes): return Net()\n"
    )
    with pytest.raises(UserError, match="its stages raise KeyError: 'gone'"):
        build_backbone(f"{tmp_path / 'net.py'}:make", 3, weights="random")


def test_lazy_layers_are_refused(tmp_path: Path) -> None:
    text = NET.replace("nn.Linear(4, num_classes)", "nn.LazyLinear(num_classes)")
    for place in ("AT_IMPORT", "IN_FORWARD", "IN_MAKE"):
        text = text.replace(place, "pass")
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UserError, match="it has lazy layers"):
        build_backbone(f"{tmp_path / 'net.py'}:make", 3, weights="random")


def test_closed_streams_stay_open(tmp_path: Path) -> None:
    build_backbone(write_network(tmp_path, at_import="sys.stdout.close(); sys.stderr.close()"), 3, weights="random")
    assert not sys.stdout.closed
    assert not sys.stderr.closed


def test_network_that_prints_leaves_json_readable(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printing = dict.fromkeys(("at_import", "in_make", "in_forward"), "print('hello')")
    words = ["compare", "--backbone", write_network(tmp_path, **printing), "--weights", "random", "--json", *SMALL]
    words += ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path / "results")]
    assert main(words) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["ablation"] == "compare"
    assert streams.err.count("hello") >= 3


def test_run_of_another_network_is_unchanged(dataset: Dataset, session: Session, tmp_path: Path) -> None:
    """The weights of a run do not depend on a network that was trained before it in the same process."""
    expected = session.store.weights(train(dataset, session))
    other = Session(dataclasses.replace(session.execution, results=tmp_path / "other"))
    name = write_network(tmp_path, in_forward="torch.backends.mkldnn.set_flags(False)", in_make="torch.manual_seed(9)")
    assert train_network(name, dataset, other).finished
    weights = other.store.weights(train(dataset, other))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
