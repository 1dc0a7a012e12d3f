"""Small networks of one shape as one: their weights in stacks, one batched product for all, steps of their own each.

What one of them computes hangs neither on the others nor on the number of threads. Heads of one layer even get the bits
that they would have alone on one thread, on the CPUs tried: there the products add the same numbers in the same order,
which several threads part; between several layers, on vectors of which the number is no multiple of 16, and on GPUs the
last digits differ.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.config.run import Training
from core.models.backbone import Backbone
from core.training import LOSSES
from core.training.heads.dropout import Dropout
from core.training.optimizers import make_optimizer

POINTWISE = (  # what takes every number by itself, so that an axis more makes no difference
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid,
)  # fmt: skip
ELEMENTWISE = (  # optimizers that do so with the numbers of a parameter
    torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
    torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adamax,
)  # fmt: skip
SMALL = 2**22  # weights of a whole stack, up to which a step on one thread is faster: several have to meet


@dataclass
class State:
    """What training changes of one network: its parameters in order, and what its optimizer keeps of each."""

    parameters: list[torch.Tensor]
    optimizer: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)


def layers_of(network: nn.Module) -> list[nn.Module]:
    """Return the layers that a network goes through one after the other; one that does not is a layer itself."""
    if isinstance(network, Backbone) or getattr(type(network), "forward", None) is nn.Sequential.forward:
        return [layer for child in network.children() for layer in layers_of(child)]
    return [network]


def can_stack(layers: Sequence[nn.Module], training: Training) -> bool:
    """Tell whether networks of these layers can be trained as one: dense layers that learn, dropout between them.

    The optimizer must be one that takes every number by itself.
    """
    dense = [layer for layer in layers if type(layer) is nn.Linear and layer.bias is not None]
    rest = [layer for layer in layers if layer not in dense]
    learnt = {p for layer in dense for p in layer.parameters() if p.requires_grad}
    if not dense or len(learnt) != 2 * len(dense):  # some are frozen, or the same
        return False
    if not all(type(layer) in (nn.Dropout, *POINTWISE) for layer in rest):
        return False
    return type(make_optimizer(dense[0].parameters(), training)) in ELEMENTWISE


class Stack:
    """Networks of the same layers.

    Parameters
    ----------
    layers
        Of one of them, without those at the beginning that learn nothing; its tensors are not looked at.
    states
        Of each; not used afterwards.
    trainings, lrs
        Of each, and its learning rate now. One optimizer serves those side by side that are told the same.

    Attributes
    ----------
    small
        Whether a step is fastest on one thread.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        states: Sequence[State],
        trainings: Sequence[Training],
        lrs: Sequence[float],
    ) -> None:
        self.layers, self.clip_norm = layers, trainings[0].clip_norm
        self.criterion = LOSSES[trainings[0].loss](trainings[0])
        given = (state.parameters for state in states)
        self.parameters = [torch.stack(same).requires_grad_() for same in zip(*given, strict=True)]
        self.small = sum(p.numel() for p in self.parameters) <= SMALL
        self.segments: list[Segment] = []
        for (training, lr), same in itertools.groupby(zip(trainings, lrs, strict=True)):
            start = self.segments[-1].stop if self.segments else 0
            stop = start + len(list(same))
            self.segments.append(Segment(start, stop, self.parameters, states[start:stop], training))
            self.segments[-1].set_lr(lr)

    def set_lrs(self, lrs: Sequence[float]) -> bool:
        """Give each network its learning rate; False where networks that one optimizer serves differ now."""
        if any(len(set(lrs[part.start : part.stop])) > 1 for part in self.segments):
            return False
        for part in self.segments:
            part.set_lr(lrs[part.start])
        return True

    def logits(self, x: torch.Tensor, which: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """Compute the logits (networks, batch, classes) in training.

        Parameters
        ----------
        x
            (inputs, batch, features), in the order in which the networks first read them.
        which
            (networks,): which of the inputs each reads.
        dropout
            Of each input.
        """
        return self._forward(self.parameters, x, which, dropout)

    @torch.inference_mode()
    def evaluate(self, networks: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (some networks, batch, classes) that the networks give for x (batch, features)."""
        some = [p[networks] for p in self.parameters]
        return self._forward(some, x[None], torch.zeros_like(networks), None)

    def _forward(
        self, parameters: Sequence[torch.Tensor], x: torch.Tensor, which: torch.Tensor, dropout: Dropout | None
    ) -> torch.Tensor:
        remaining, parted = iter(parameters), False  # networks with one input part at the first dense layer
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                x = x if parted else _of_each(x, which)
                x, parted = Dense.apply(x, next(remaining), next(remaining)), True
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
            elif dropout and layer.p:
                x = dropout(x, parted=parted)
        return x

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss (networks,) of each: of logits (networks, batch, classes) and labels (networks, batch)."""
        if type(self.criterion) is nn.CrossEntropyLoss:  # at once: gradients of the same bits in a third of the time
            each = functional.cross_entropy(
                logits.flatten(0, 1),
                labels.flatten(),
                reduction="none",
                label_smoothing=self.criterion.label_smoothing,
            )
            return each.view(labels.shape).mean(1)
        return torch.stack([self.criterion(own, y) for own, y in zip(logits.unbind(), labels.unbind(), strict=True)])

    def step(self, loss: torch.Tensor) -> None:
        """Take each network's step after its loss (networks,)."""
        grads = torch.autograd.grad(loss.sum(), self.parameters)
        if self.clip_norm:
            norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads], dim=1)
            shrunk = (self.clip_norm / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1)
            grads = tuple(g * shrunk.view(-1, *(1 for _ in g.shape[1:])) for g in grads)
        for part in self.segments:
            part.step(grads)

    def states(self) -> list[State]:
        """Return the state of each network, in the form that an optimizer of it alone would give."""
        return [state for part in self.segments for state in part.states()]


class Segment:
    """Networks `start` to `stop` of a stack, which one optimizer serves: its parameters are theirs, in one piece.

    Parameters
    ----------
    start, stop
        The networks.
    parameters
        Of all networks of the stack.
    states
        Of these.
    training
        What the optimizer is told.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        parameters: Sequence[torch.Tensor],
        states: Sequence[State],
        training: Training,
    ) -> None:
        self.start, self.stop = start, stop
        self.parameters = [nn.Parameter(p.detach()[start:stop]) for p in parameters]  # the same memory
        self.optimizer = make_optimizer(self.parameters, training)
        if kept := states[0].optimizer:
            state = {index: _joined([s.optimizer[index] for s in states]) for index in kept}
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def set_lr(self, lr: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self, grads: Sequence[torch.Tensor]) -> None:
        """Take a step along the gradients of all networks of the stack."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad[self.start : self.stop]
        self.optimizer.step()

    def states(self) -> Iterator[State]:
        """Go through the states of the networks."""
        kept, count = self.optimizer.state_dict()["state"], self.stop - self.start
        for k in range(count):
            own = {
                index: {key: _of_one(value, k, count) for key, value in state.items()} for index, state in kept.items()
            }
            yield State([p.detach()[k].clone() for p in self.parameters], own)


class Dense(torch.autograd.Function):
    """Linear layers side by side; the products of a network are the same bits beside others and by itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Map x (networks, batch, in) with weights (networks, out, in) and biases (networks, out)."""
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Return the gradients of the three tensors; torch's own of the weights is transposed, which takes longer."""
        x, weight = ctx.saved_tensors
        (grad,) = given
        back = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return back, torch.bmm(grad.mT, x), grad.sum(1)


def _of_each(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Return what each network reads; where all read others, that is what is there already."""
    if len(x) == len(which):
        return x
    return x.expand(len(which), *x.shape[1:]) if len(x) == 1 else x[which]


def _of_one(value: Any, k: int, count: int) -> Any:
    """Return what one of `count` networks has of a value that an optimizer keeps: its part, or the common number."""
    if isinstance(value, torch.Tensor):
        return value[k].clone() if value.ndim and len(value) == count else value.clone()
    return value


def _joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: torch.stack([s[key] for s in states]) if isinstance(value, torch.Tensor) and value.ndim else value
        for key, value in states[0].items()
    }
