"""A network of the user's own: ``path/to/net.py:make``."""

import hashlib
import inspect
import sys
import traceback
import types
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.models.family import ANYTHING, Family, Layout, Shape
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import nn

torch = Lazy("torch")
chains = Lazy("core.models.stage_check")


class User(Family):
    """Networks out of files: a function of a Python file makes one.

    The function is called with those of ``num_classes``, ``input_shape`` (without the batch: channels, height, width)
    and ``dropout`` that it has parameters for, and returns a new `torch.nn.Sequential`, whose children are the stages
    (the first the stem, the last the head), or a module with a ``stages`` mapping: stage name to module, in forward
    order. The last linear layer of the head is the classifier.
    """

    about = "path/to/net.py:make, a function that makes a network of your own"
    pattern = "path/to/net.py:make"
    checked = True

    def owns(self, name: str) -> bool:
        """Say whether it names a Python file."""
        return ".py:" in name or name.endswith(".py")

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Make the network once and look."""
        return _facts(name, self.digest(name), input_shape)[0]

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> "nn.Module":
        """Call the function."""
        return _call(name, {"num_classes": num_classes, "input_shape": tuple(input_shape), "dropout": dropout})

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Read the stages off the network."""
        try:
            found: Layout = chains.layout(model)
        except chains.NoChain as error:
            raise self.refusal(name, str(error)) from None
        return found

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Find the last linear layer of the head."""
        try:
            path: str = chains.classifier(model, self.layout(model, name))
        except chains.NoChain as error:
            raise self.refusal(name, str(error)) from None
        return path

    def takes(self, name: str) -> str:
        """Return `ANYTHING`: the trial shows what it takes."""
        return ANYTHING

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Count what its head learns."""
        return _facts(name, self.digest(name), input_shape)[1]

    def file(self, name: str) -> str:
        """Return the part before the function's name."""
        return name if name.endswith(".py") else name.rpartition(":")[0]

    def digest(self, name: str) -> str:
        """Hash the file as it is now."""
        return hashlib.sha256(_source(name)).hexdigest()

    def refusal(self, name: str, reason: str) -> UserError:
        """Say what is wrong with the network."""
        return UserError(f"network {name}: {reason}")


FAMILY = User()
_given: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # every module a function returned and somebody still has


@cache
def _facts(name: str, digest: str, input_shape: Shape) -> tuple[tuple[str, ...], bool]:
    """Return the stages' names and whether the head is plain, of a file with this SHA-256."""
    with torch.random.fork_rng(devices=[]):
        model = FAMILY.make(name, num_classes=2, input_shape=input_shape, dropout=0.0)
    found = FAMILY.layout(model, name)
    linear = model.get_submodule(FAMILY.classifier(model, name))
    learned = [p for path in found["head"] for p in model.get_submodule(path).parameters()]
    return tuple(found), len(learned) == len(list(linear.parameters()))


def _source(name: str) -> bytes:
    path = Path(FAMILY.file(name))
    if name.endswith(".py"):
        raise UserError(f"--backbone {name}: name the function that makes the network too, as in {name}:make")
    if not path.is_file():
        raise UserError(f"network file {path} does not exist: give --backbone path/to/net.py:make")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read network file {path}: {error.strerror}") from None


def _call(name: str, offered: dict[str, Any]) -> "nn.Module":
    """Call the function of ``file:function`` with those of `offered` that it has parameters for."""
    function = _function(name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise FAMILY.refusal(name, "it is no function that can be called") from None
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if odd := [p for p in needed if p not in offered or p not in known]:
        raise FAMILY.refusal(name, f"its parameter {odd[0]} has no default; it is given any of {', '.join(offered)}")
    whole = any(p.kind == p.VAR_KEYWORD for p in parameters)
    try:
        model = function(**{key: value for key, value in offered.items() if whole or key in known})
    except (Exception, SystemExit) as error:  # whatever foreign code raises
        raise FAMILY.refusal(name, f"it raises {_where(name, error)}") from error
    if not isinstance(model, torch.nn.Module):
        what = type(model).__name__
        raise FAMILY.refusal(name, f"it returns a {what}, not a torch.nn.Sequential or a module with `stages`")
    if any(module in _given for module in model.modules()):
        raise FAMILY.refusal(name, "it returns the same modules twice: make new ones at every call")
    _given.update(model.modules())
    return model


def _function(name: str) -> Callable[..., Any]:
    module, wanted = _module(name), name.rpartition(":")[2]
    found = getattr(module, wanted, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise UserError(
            f"network file {FAMILY.file(name)} has no function '{wanted}'"
            + (f": it has {', '.join(functions)}" if functions else "")
        )
    return found


_modules: dict[tuple[str, str], types.ModuleType] = {}


def _module(name: str) -> types.ModuleType:
    """Run the file, once for each content."""
    source, path = _source(name), Path(FAMILY.file(name))
    digest = hashlib.sha256(source).hexdigest()
    if (str(path), digest) not in _modules:
        module = types.ModuleType(f"network_{digest[:12]}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # where dataclasses and pickles look for what it defines
        try:
            with torch.random.fork_rng(devices=[]):
                exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102 (the user's own code, asked for)
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise UserError(f"network file {path} cannot be run: {_where(name, error)}") from error
        _modules[str(path), digest] = module
    return _modules[str(path), digest]


def _where(name: str, error: BaseException) -> str:
    """Say an error in one line, with the last line of the user's file that it passed."""
    path = str(Path(FAMILY.file(name)))
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == path else line
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")
