"""Threads that stop when the work is given up."""

from concurrent.futures import ThreadPoolExecutor


class Workers(ThreadPoolExecutor):
    """A pool whose ``with`` block, when it ends in an error or an interrupt, does not wait for work not yet begun."""

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.shutdown(cancel_futures=kind is not None)
