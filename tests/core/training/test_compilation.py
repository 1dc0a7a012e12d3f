"""`--compile`: equal results, one compiled batch size, and an error without a compiler."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from core.config.run import Training
from core.errors import UserError
from core.training.compilation import CompiledForBatchSize, check_compiler, compile_network
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _reset_compiler() -> Iterator[None]:
    """Remove the programs of other tests, and count those of this one."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def count_programs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def build_network(seed: int = 0, *, layers: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(2, 3))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace programs as usual but run them without compilation, which is much faster."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("eager")
def test_only_the_first_batch_size_is_compiled() -> None:
    forward = compile_network(build_network(), CPU)
    for size in (4, 4, 3, 4, 5, 3):
        forward(torch.randn(size, 2, 8, 8)).sum().backward()
    assert count_programs() == 1


def test_network_on_gpu_uses_cuda_graphs_and_marks_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = []
    events: list[str] = []

    def compile_(module: nn.Module, **kwargs: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        options.append(kwargs)
        return lambda x: events.append("replay") or module(x)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: events.append("step"))
    forward = CompiledForBatchSize(build_network(), torch.device("cuda"))
    for size in (4, 3, 4):
        forward(torch.randn(size, 2, 8, 8))
    assert options == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert events == ["step", "replay", "step", "step", "replay"]


def test_network_in_another_thread_uses_no_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch before 2.14 supports them only in the main thread."""
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda module, **kwargs: options.append(kwargs))
    thread = threading.Thread(target=CompiledForBatchSize, args=(build_network(), torch.device("cuda")))
    thread.start()
    thread.join()
    assert options == [{"dynamic": False, "mode": None}]


@pytest.mark.parametrize(("device", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_missing_compiler_is_an_error(device: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    check_compiler(torch.device(device))
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(UserError, match=f"--compile.*{variable}=no-such-compiler.*leave --compile out"):
        compile_network(build_network(), torch.device(device))
    monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--compile.*g[+c][+c] .*not found"):
        check_compiler(torch.device(device))


@pytest.mark.slow
def test_compiled_training_gives_the_same_losses_and_weights(capfd: pytest.CaptureFixture[str]) -> None:
    networks = [build_network(3, layers=2) for _ in range(2)]
    steps = []
    for network, compile_ in zip(networks, (False, True), strict=True):
        training = Training(compile=compile_, lr=0.01)
        steps.append(TrainingStep(network.train(), make_optimizer(network.parameters(), training), training, CPU))
    torch.manual_seed(0)
    for size in (8, 8, 3, 8):
        x, y = torch.randn(size, 2, 8, 8), torch.arange(size) % 3
        (plain, _), (compiled, _) = (step(x, y) for step in steps)
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert count_programs() == 1
    for one, other in zip(*(network.state_dict().values() for network in networks), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert capfd.readouterr() == ("", "")
