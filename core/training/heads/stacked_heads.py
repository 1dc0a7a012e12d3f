"""Networks with the same dense layers, whose weights are stacked along a first axis."""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from core.config.run import Training
from core.models.backbone import Backbone
from core.training import LOSSES
from core.training.heads.dropout import SharedDropout
from core.training.optimizers import make_optimizer

OptimizerState = dict[int, dict[str, torch.Tensor]]  # by index of the parameter, then by name as in torch

ACTIVATIONS = (  # elementwise activation functions, which accept stacked inputs
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid,
)  # fmt: skip
ELEMENTWISE_OPTIMIZERS = (  # optimizers that update each weight independently, so stacking has no effect
    torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
    torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adamax,
)  # fmt: skip


def flatten_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers of nested sequential modules in order; any other module counts as one layer."""
    if isinstance(network, Backbone) or getattr(type(network), "forward", None) is nn.Sequential.forward:
        return [layer for child in network.children() for layer in flatten_layers(child)]
    return [network]


def can_stack(layers: Sequence[nn.Module], training: Training) -> bool:
    """Tell whether the layers of several networks can be trained in one batched product.

    They must be dense layers, dropout and activation functions.

    The optimizer must also update each weight independently.
    """
    dense = [layer for layer in layers if type(layer) is nn.Linear and layer.bias is not None]
    others = [layer for layer in layers if layer not in dense]
    trained = {p for layer in dense for p in layer.parameters() if p.requires_grad}
    if not dense or len(trained) != 2 * len(dense):  # a layer is frozen, or two share their weights
        return False
    if not all(type(layer) in (nn.Dropout, *ACTIVATIONS) for layer in others):
        return False
    return type(make_optimizer(dense[0].parameters(), training)) in ELEMENTWISE_OPTIMIZERS


class StackedHeads:
    """Networks with the same layers, computed and trained by batched matrix products.

    Parameters
    ----------
    layers
        Layers of one network; their weights are not used.
    parameters
        Weights and biases in order, each of shape (networks, ...).
    trainings
        Training options of each network; they may differ in learning rate and weight decay.
    lrs
        Current learning rate of each network.
    state
        Optimizer state of all networks, as returned by `optimizer_state`; empty before the first step.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        parameters: Sequence[torch.Tensor],
        trainings: Sequence[Training],
        lrs: Sequence[float],
        state: OptimizerState,
    ) -> None:
        self.layers, self.trainings, self.max_grad_norm = layers, trainings, trainings[0].clip_norm
        self.loss = torch.vmap(LOSSES[trainings[0].loss](trainings[0]))
        self.parameters = [p.detach().requires_grad_() for p in parameters]
        # Neighbours with equal training options and learning rates share an optimizer.
        self.parts: list[tuple[slice, torch.optim.Optimizer]] = []
        start = 0
        for (training, _), equal in itertools.groupby(zip(trainings, lrs, strict=True)):
            part = slice(start, start + len(list(equal)))
            views = [nn.Parameter(p.detach()[part]) for p in self.parameters]  # a step changes the stacked tensors
            optimizer = make_optimizer(views, training)
            for parameter, values in zip(views, state.values(), strict=False):
                optimizer.state[parameter] = {name: v[part] if v.ndim else v.clone() for name, v in values.items()}
            self.parts.append((part, optimizer))
            start = part.stop
        self.set_lrs(lrs)

    def set_lrs(self, lrs: Sequence[float]) -> bool:
        """Set the learning rate of each network; return False if networks that share an optimizer differ."""
        for part, optimizer in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lrs[part.start]
        return all(len(set(lrs[part])) == 1 for part, _ in self.parts)

    def select(self, networks: Sequence[int], lrs: Sequence[float]) -> "StackedHeads":
        """Return a stack of some of the networks, with their optimizer states.

        Parameters
        ----------
        networks
            Indices of the networks, in the new order.
        lrs
            Learning rate of each selected network.
        """
        index = torch.tensor(networks, device=self.parameters[0].device)
        state = {
            k: {name: v[index] if v.ndim else v for name, v in values.items()}
            for k, values in self.optimizer_state().items()
        }
        chosen = [p.detach()[index] for p in self.parameters]
        return StackedHeads(self.layers, chosen, [self.trainings[k] for k in networks], lrs, state)

    def optimizer_state(self) -> OptimizerState:
        """Return the stacked optimizer state of each parameter; scalars such as Adam's step count are shared."""
        states = [[optimizer.state[p] for p in optimizer.param_groups[0]["params"]] for _, optimizer in self.parts]
        return {
            k: {
                name: torch.cat([state[k][name] for state in states]) if value.ndim else value
                for name, value in values.items()
                if isinstance(value, torch.Tensor)
            }
            for k, values in enumerate(states[0])
        }

    def logits(self, x: torch.Tensor, input_of: torch.Tensor, dropout: SharedDropout) -> torch.Tensor:
        """Compute the logits (networks, batch, classes) of a training batch.

        Parameters
        ----------
        x
            Inputs (inputs, batch, features); networks with the same batch share an input.
        input_of
            Index of the input of each network, shape (networks,).
        dropout
            Dropout masks.
        """
        return self._forward(self.parameters, x, input_of, dropout)

    @torch.inference_mode()
    def evaluate(self, networks: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits (chosen networks, batch, classes) of x (batch, features), without dropout."""
        return self._forward([p[networks] for p in self.parameters], x[None], torch.zeros_like(networks), None)

    def _forward(
        self, parameters: Sequence[torch.Tensor], x: torch.Tensor, input_of: torch.Tensor, dropout: SharedDropout | None
    ) -> torch.Tensor:
        remaining, is_per_network = iter(parameters), False  # x starts as (inputs, batch, features)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                if not is_per_network and len(x) != len(input_of):
                    x = x.expand(len(input_of), -1, -1) if len(x) == 1 else x[input_of]
                is_per_network = True
                # weight times x is used, because its gradient is faster than that of x times weight
                x = torch.bmm(next(remaining), x.mT).mT + next(remaining)[:, None]
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
            elif dropout and layer.p:
                x = dropout(x, layer.p, per_network=is_per_network)
        return x

    def step(self, losses: torch.Tensor) -> None:
        """Take an optimizer step for each network, given the loss of each, shape (networks,)."""
        grads = torch.autograd.grad(losses.sum(), self.parameters)
        if self.max_grad_norm:
            norm = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]).norm(dim=0)
            scale = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1)
            grads = tuple(g * scale.view(-1, *(1 for _ in g.shape[1:])) for g in grads)
        for part, optimizer in self.parts:
            for parameter, grad in zip(optimizer.param_groups[0]["params"], grads, strict=True):
                parameter.grad = grad[part]
            optimizer.step()
