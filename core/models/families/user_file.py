"""Networks defined in a user's Python file: ``path/to/net.py:make``."""

import hashlib
import inspect
import sys
import traceback
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, first_line
from core.models.family import ANY_INPUT, Family, Layout, Shape
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import nn

torch = Lazy("torch")
isolate_user_code = Lazy("core.system.user_code:isolate_user_code")
stage_check = Lazy("core.models.stage_check")
child_stages = Lazy("core.models.child_stages")


class UserFile(Family):
    """Networks built by a function of a Python file.

    The function is called with the parameters it has among ``num_classes``, ``input_shape`` (channels, height, width;
    no batch axis) and ``dropout``; a class works as well. It returns a new `torch.nn.Sequential` whose children are the
    stages (first stem, last head), a module with a ``stages`` mapping from stage names to modules in forward order, or
    a module whose children in order compute its forward pass (`core.models.child_stages`). The last linear layer of the
    head is the classifier.
    """

    about = "path/to/net.py:make, a function that builds your own network"
    pattern = "path/to/net.py:make"
    checked = plans_check = True

    def owns(self, name: str) -> bool:
        """Return whether `name` names a Python file."""
        return ".py:" in name or name.endswith(".py")

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Build the network once and return its stage names."""
        return _inspect(name, self.digest(name), input_shape)[0]

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float | None) -> "nn.Module":
        """Call the function in the user's network file that returns the network."""
        model = _call(name, {"num_classes": num_classes, "input_shape": tuple(input_shape), "dropout": dropout or 0.0})
        with self._checked(name):
            if not stage_check.names_stages(model):
                _divided[model] = child_stages.divide_children(model, input_shape)
        return model

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Return the stages that the network names."""
        with self._checked(name):
            found: Layout = stage_check.find_layout(model, _divided.get(model))
        return found

    @contextmanager
    def _checked(self, name: str) -> Iterator[None]:
        """Turn errors of the stages, which may be a property of the user's class, into a `UserError`."""
        try:
            with isolate_user_code():
                yield
        except stage_check.NotAChain as error:
            raise self.not_supported(name, str(error)) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.not_supported(name, f"its stages raise {_describe_error(name, error)}") from error

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Return the path of the last linear layer of the head."""
        try:
            path: str = stage_check.find_classifier(model, self.layout(model, name))
        except stage_check.NotAChain as error:
            raise self.not_supported(name, str(error)) from None
        return path

    def input_kind(self, name: str) -> str:
        """Return `ANY_INPUT`; `check_stages` tries the shape of the run."""
        return ANY_INPUT

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return whether the head has no parameters but the classifier's."""
        return _inspect(name, self.digest(name), input_shape)[1]

    def file(self, name: str) -> str:
        """Return the path before the function's name."""
        return name if name.endswith(".py") else name.rpartition(":")[0]

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the file."""
        return hashlib.sha256(_source(name)).hexdigest()

    def not_supported(self, name: str, reason: str) -> UserError:
        """Return the error for a network that cannot be used."""
        return UserError(f"network {name}: {reason}")


FAMILY = UserFile()
# stages of networks that do not name them
_divided: "weakref.WeakKeyDictionary[nn.Module, dict[str, nn.Module]]" = weakref.WeakKeyDictionary()
_returned_modules: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # modules that user functions have returned


@cache
def _inspect(name: str, digest: str, input_shape: Shape) -> tuple[tuple[str, ...], bool]:
    """Return the stage names and whether the head is plain, cached by the SHA-256 of the file."""
    with torch.random.fork_rng(devices=[]):
        model = FAMILY.make(name, num_classes=2, input_shape=input_shape, dropout=0.0)
    found = FAMILY.layout(model, name)
    linear = model.get_submodule(FAMILY.classifier(model, name))
    learned = [p for path in found["head"] for p in model.get_submodule(path).parameters()]
    return tuple(found), len(learned) == len(list(linear.parameters()))


def _source(name: str) -> bytes:
    path = Path(FAMILY.file(name))
    if name.endswith(".py"):
        raise UserError(f"--backbone {name}: add the name of the function that builds the network, as in {name}:make")
    if not path.is_file():
        raise UserError(f"network file {path} does not exist: give --backbone path/to/net.py:make")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read network file {path}: {error.strerror}") from None


def _call(name: str, offered: dict[str, Any]) -> "nn.Module":
    """Call the function of ``file:function`` with the arguments among `offered` that it has parameters for."""
    function = _function(name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise FAMILY.not_supported(name, "it is not a function that can be called") from None
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if odd := [p for p in needed if p not in offered or p not in known]:
        text = f"its parameter {odd[0]} has no default; available arguments: {', '.join(offered)}"
        wanted = name.rpartition(":")[2]
        if inspect.isclass(function):
            text += f"; add a function to the file: def make(num_classes): return {wanted}({odd[0]}=...)"
        raise FAMILY.not_supported(name, text)
    whole = any(p.kind == p.VAR_KEYWORD for p in parameters)
    try:
        with isolate_user_code():
            model = function(**{key: value for key, value in offered.items() if whole or key in known})
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may raise anything
        raise FAMILY.not_supported(name, f"it raises {_describe_error(name, error)}") from error
    if not isinstance(model, torch.nn.Module):
        what = type(model).__name__
        raise FAMILY.not_supported(name, f"it returns a {what}, not a torch.nn.Module")
    if any(isinstance(p, torch.nn.parameter.UninitializedTensorMixin) for p in model.parameters()):
        raise FAMILY.not_supported(name, "it has lazy layers: give the sizes of all layers")
    if any(module in _returned_modules for module in model.modules()):
        raise FAMILY.not_supported(name, "it returns the same modules at every call: create new ones each time")
    _returned_modules.update(model.modules())
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
    """Execute the file, once per content."""
    source, path = _source(name), Path(FAMILY.file(name))
    digest = hashlib.sha256(source).hexdigest()
    if (str(path), digest) not in _modules:
        module = types.ModuleType(f"network_{digest[:12]}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # dataclasses and pickle look modules up there
        try:
            with isolate_user_code(), torch.random.fork_rng(devices=[]):
                exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102 (the user names this file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            del sys.modules[module.__name__]
            raise UserError(f"network file {path} raises {_describe_error(name, error)}") from error
        _modules[str(path), digest] = module
    return _modules[str(path), digest]


def _describe_error(name: str, error: BaseException) -> str:
    """Format an error as one line, with the line number in the user's file."""
    path = str(Path(FAMILY.file(name)))
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == path else line
    kind, text = type(error).__name__, first_line(error)
    return (kind if text == kind else f"{kind}: {text}") + (f" (line {line})" if line else "")
