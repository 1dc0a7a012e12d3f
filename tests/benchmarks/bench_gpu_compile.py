"""``--compile`` on a GPU (CUDA graphs): epochs of small batches with it, against without.

Compiling a network takes minutes, so this is a benchmark of its own.
"""

from collections.abc import Iterator

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop
from tests.benchmarks.bench_gpu import Size, batch_rows, on_gpu, random_run, time_on_device
from tests.benchmarks.comparison import Row, compare


def measure() -> Iterator[Row]:
    """Yield a row per network; none without a GPU."""
    yield from on_gpu(rows)


def rows(run: Run, dataset: Dataset, session: Session, size: Size) -> Iterator[Row]:
    """Yield a row per network in this process."""
    for backbone in size.backbones:
        plain = random_run(run, backbone, size.compiled_batch_size, size.precision)
        sides = plain.replace(training__compile=True), plain
        fits = [TrainingLoop(side, prepare(side, dataset, session), session, "epoch") for side in sides]
        order = batch_rows(fits[0].prepared, plain, size)
        epochs = [lambda fit=fit, order=order: fit._train_epoch(order, 0) for fit in fits]
        times = time_on_device(size.repeats, session.device, *epochs)
        what = f"{backbone}, {size.compiled_batch_size} clips: epoch with --compile / without"
        yield compare(what, *times, 1.0, at_most=True)
