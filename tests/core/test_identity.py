"""A run's id is for good: what older versions trained is found again, whatever was added since."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import config
from core.config import Run
from core.fields import option

RECORD = Path(__file__).parent / "data" / "run-of-version-1.json"
PINNED = {  # ids as version 1 gave them
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
def test_ids_stay(id: str, changes: dict[str, object]) -> None:
    assert Run().replace(**changes).id == id


def test_run_of_version_1_is_read_with_its_id() -> None:
    record = json.loads(RECORD.read_text())
    assert Run.from_dict(record["config"]).id == record["id"]


def test_added_field_leaves_ids_as_they_were_and_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Clip(config.Clip):
        gain: float = option(2.0, "Loudness.", absent=1.0)

    @dataclass(frozen=True, kw_only=True)
    class Later(Run):
        clip: Clip = Clip()

    monkeypatch.setitem(config.GROUPS, "clip", Clip)
    as_before = Later(clip=Clip(gain=1.0))
    assert as_before.id == Run().id
    assert Later().id != Run().id
    stored = json.loads(json.dumps(dataclasses.asdict(Run())))
    read = config._from_dict(Later, {**stored, "clip": stored["clip"]}, "run")
    assert read.clip.gain == 1.0
