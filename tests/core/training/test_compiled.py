"""`--compile`: what is compiled, how often, and what a machine without a compiler is told."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._inductor import cudagraph_trees

from core.config.run import Training
from core.errors import UserError
from core.inference.fast_forward import fast_eval
from core.inference.precision import ComputeMode
from core.training.compiled import CompiledForBatchSize, check_compiler, compile_network
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    """Begin and end without programs of other tests, and count those of this one."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def programs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def network(seed: int = 0, *, layers: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(2, 3))


def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture programs as torch does for every compiler, and run them as they are: no minutes, and the same counts."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_only_the_first_size_of_a_batch_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    captured(monkeypatch)
    forward = compile_network(network(), CPU)
    for size in (4, 4, 3, 4, 5, 3):
        forward(torch.randn(size, 2, 8, 8)).sum().backward()
    assert programs() == 1


def test_networks_that_differ_in_their_tensors_share_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    captured(monkeypatch)
    for seed in range(3):
        compile_network(network(seed), CPU)(torch.randn(4, 2, 8, 8))
    assert programs() == 1
    frozen = network()
    frozen[0].requires_grad_(False)
    compile_network(frozen, CPU)(torch.randn(4, 2, 8, 8))
    assert programs() == 2


def test_more_networks_than_torch_compiles_unasked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    captured(monkeypatch)
    for layers in range(12):  # torch gives up at 8, and says so in six lines
        compile_network(network(layers=layers), CPU)(torch.randn(4, 2, 8, 8))
    assert programs() == 12
    assert capfd.readouterr() == ("", "")


def test_a_gpu_replays_a_graph_and_is_told_where_steps_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    said: list[str] = []

    def compile_(module: nn.Module, **how: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        asked.append(how)
        return lambda x: said.append("replayed") or module(x)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: said.append("begun"))
    forward = CompiledForBatchSize(network(), torch.device("cuda"))
    for size in (4, 3, 4):
        forward(torch.randn(size, 2, 8, 8))
    assert asked == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert said == ["begun", "replayed", "begun", "begun", "replayed"]


def test_every_thread_has_somewhere_to_keep_graphs() -> None:
    """As torch below 2.14 asks for it, where a thread that is not the main one has nothing of the kind."""
    found: list[object] = []

    def record() -> None:
        found.append(torch._C._is_key_in_tls("tree_manager_locks"))
        for _ in range(2):
            CompiledForBatchSize(network(), torch.device("cuda"))
            for name in ("tree_manager_containers", "tree_manager_locks"):
                assert torch._C._is_key_in_tls(name)
                found.append(cudagraph_trees.get_obj(cudagraph_trees.local, name))

    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    before, *kept = found
    assert before is False
    assert [type(one) for one in kept[:2]] == [dict, defaultdict]
    assert kept[0] is kept[2]
    assert kept[1] is kept[3]
    assert kept[0] is not cudagraph_trees.get_obj(cudagraph_trees.local, "tree_manager_containers")


def test_an_evaluation_between_two_epochs_leaves_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It folds batch norms and puts them back: neither another program, nor another graph of a GPU's."""
    captured(monkeypatch)
    whole = network().train()
    forward, x = compile_network(whole, CPU), torch.randn(4, 2, 8, 8)
    before = [tensor.data_ptr() for tensor in whole.state_dict().values()]
    for _ in range(2):
        whole.train()
        forward(x).sum().backward()
        with torch.inference_mode(), fast_eval(whole, ComputeMode(Training(), CPU), lambda: x):
            whole(x)
    assert programs() == 1
    assert [tensor.data_ptr() for tensor in whole.state_dict().values()] == before


@pytest.mark.parametrize(("device", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_a_machine_without_a_compiler_gets_one_line(
    device: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    check_compiler(torch.device(device))
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(UserError, match=f"^--compile needs a C.. compiler, and {variable}=no-such-compiler is none: "):
        compile_network(network(), torch.device(device))
    monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"^--compile needs a C\+\+ compiler, and there is no g[+c]") as caught:
        check_compiler(torch.device(device))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_compiled_training_is_training(capfd: pytest.CaptureFixture[str]) -> None:
    """Compiled for real: the same losses and weights to rounding, whatever size the last batch has, and no word."""
    networks = [network(3, layers=2) for _ in range(2)]
    steps = []
    for one, compile_ in zip(networks, (False, True), strict=True):
        training = Training(compile=compile_, lr=0.01)
        steps.append(TrainingStep(one.train(), make_optimizer(one.parameters(), training), training, CPU))
    torch.manual_seed(0)
    for size in (8, 8, 3, 8):
        x, y = torch.randn(size, 2, 8, 8), torch.arange(size) % 3
        (eager, _), (made, _) = (step(x, y) for step in steps)
        torch.testing.assert_close(made, eager, atol=1e-5, rtol=1e-5)
    assert programs() == 1
    for ours, theirs in zip(networks[1].state_dict().values(), networks[0].state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert capfd.readouterr() == ("", "")
