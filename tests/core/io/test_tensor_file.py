"""Files of tensors of which some are changed: the bytes that safetensors writes, and the digest of what is there."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.io import atomic_files
from core.io.tensor_file import Changed, TensorFile

TENSORS = {
    "b.weight": torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "a.weight": torch.ones(3, 5),
    "a.steps": torch.tensor(7),
    "c.bias": torch.zeros(0),
    "d.half": torch.ones(3, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("names", [(), ("a.weight",), ("d.half", "b.weight", "a.steps"), tuple(TENSORS)])
def test_a_changed_file_has_the_bytes_of_one_written_whole(tmp_path: Path, names: tuple[str, ...]) -> None:
    changed = {name: TENSORS[name] * 3 for name in names}
    file = TensorFile(TENSORS)
    for number in range(2):  # the second time the beginning has been digested
        Changed(file, changed).write(tmp_path / f"{number}")
        assert load_file(tmp_path / f"{number}").keys() == TENSORS.keys()
        content = (tmp_path / f"{number}").read_bytes()
        assert atomic_files.file_digest(tmp_path / f"{number}") == hashlib.sha256(content).hexdigest()
    save_file({name: tensor.contiguous() for name, tensor in (TENSORS | changed).items()}, tmp_path / "whole")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "whole").read_bytes() == (tmp_path / "0").read_bytes()


def test_a_tensor_of_another_size_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("as before")
    with pytest.raises(ValueError, match="a.weight has 16 bytes instead of 60"):
        TensorFile(TENSORS).write(tmp_path / "weights", {"a.weight": torch.ones(4)})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as before"]


def test_a_file_that_was_changed_afterwards_is_digested_anew(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    TensorFile(TENSORS).write(path, {})
    known = atomic_files.file_digest(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert atomic_files.file_digest(path) != known
