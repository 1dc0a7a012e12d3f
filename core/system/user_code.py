"""Run code of a user, such as the file of a network, without effects on other runs or on the output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from core.system.torch_settings import restored_settings


class _OpenStream:
    """A stream that cannot be closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def isolate_user_code() -> Iterator[None]:
    """Run a block that calls code of a user.

    Global settings are restored after the block (`restored_settings`). The code prints to stderr, because ``--json``
    prints one object to stdout, and it cannot close the standard streams.
    """
    stream: Any = _OpenStream(sys.stderr)
    with restored_settings(), redirect_stdout(stream), redirect_stderr(stream):
        yield
