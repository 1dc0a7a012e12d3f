"""A safetensors file that is written again and again with few of its tensors changed."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from core.io.atomic_files import atomic_write, remember_digest


class TensorFile:
    """What a file holds, laid out by safetensors once.

    Heads on one frozen network differ in a hundredth of their tensors and less: what comes before the first of these
    is digested once too.

    Parameters
    ----------
    tensors
        Every tensor by its name, as it is where it is not changed.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        begin = 8 + int.from_bytes(content[:8], "little")  # of the tensors, behind a length and the names
        header = json.loads(content[8:begin])
        offsets = {name: header[name]["data_offsets"] for name in tensors}
        self._spans = {name: (begin + first, begin + last) for name, (first, last) in offsets.items()}
        self._content = memoryview(content)
        self._digested = cache(lambda end: hashlib.sha256(self._content[:end]))

    def write(self, path: Path, changed: Mapping[str, torch.Tensor]) -> None:
        """Write the file with some of its tensors changed, whole or not at all; its digest is known then.

        Raises
        ------
        ValueError
            Where one has another size than the tensor whose name it has.
        """
        first, *rest = self._parts(changed)
        digest = self._digested(len(first)).copy()
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            file.write(first)
            for part in rest:
                file.write(part)
                digest.update(part)
        remember_digest(path, digest.hexdigest())

    def _parts(self, changed: Mapping[str, torch.Tensor]) -> Iterator[Any]:
        """Go through what is one after the other in the file; nothing is changed before the second part."""
        at = 0
        for name in sorted(changed, key=lambda name: self._spans[name]):
            start, stop = self._spans[name]
            numbers = changed[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            if len(numbers) != stop - start:
                raise ValueError(f"{name} has {len(numbers)} bytes instead of {stop - start}")
            yield self._content[at:start]
            yield numbers
            at = stop
        yield self._content[at:]


@dataclass(frozen=True)
class Changed:
    """A file with some of its tensors changed."""

    file: TensorFile
    tensors: Mapping[str, torch.Tensor]

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        self.file.write(path, self.tensors)
