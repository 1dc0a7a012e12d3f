from typing import Any

import pytest

from ablations.freeze import Freeze
from ablations.planning.call import make_call
from ablations.planning.grid import make_grid, read_preset_option
from ablations.planning.presets import QUICK_SETTINGS, QUICK_TEXT, read_preset
from ablations.planning.study_schema import load_preset
from core.config.run import Run
from core.errors import UserError

CONTENT = "6aa65d2bb6c33610809ade7ea91af84315cce2326206a1839bb0b904586163e1"  # of the embedded data set of version 1
RULES: list[dict[str, Any]] = [
    {"lr": 1e-4, "epochs": 70, "fold": "all"},
    {"when": {"weights": "random"}, "epochs": 450, "milestones": [300, 350]},
    {"when": {"backbone": ["resnet*", "densenet*"]}, "dropout": 0},
    {"when": {"backbone": "densenet201", "data": "gtzan"}, "fold": 1},
]


def test_load_preset_paper_depends_on_the_weights() -> None:
    for name in ("paper", "rethinking-cnn"):
        assert load_preset(name)({})["training__epochs"] == 70
        scratch = load_preset(name)({"model__weights": "random"})
        assert (scratch["training__epochs"], scratch["training__milestones"]) == (450, (300, 350))
    assert load_preset("")({"model__weights": "random"}) == {"model__weights": "random"}


def quick_run(**words: list[str]) -> Run:
    """Return the run of ``freeze --quick`` with other options."""
    call = make_call("freeze", Freeze, {"quick": [], **{flag.replace("_", "-"): word for flag, word in words.items()}})
    (point,) = make_grid(call)
    return Run().replace(**read_preset_option(call)(point))


def test_quick_is_a_preset_that_given_options_override() -> None:
    quick = quick_run()
    words = QUICK_TEXT.replace("--", "").split()
    given = make_call("freeze", Freeze, {flag: [word] for flag, word in zip(words[::2], words[1::2], strict=True)})
    assert {f"training__{k}": getattr(quick.training, k) for k in ("epochs", "quick")}.items() <= QUICK_SETTINGS.items()
    assert quick.replace(training__quick=False) == Run().replace(**make_grid(given)[0])  # the help shows the settings
    assert quick.id != quick.replace(training__quick=False).id  # outputs are marked, so it is another run
    other = quick_run(epochs=["7"], n_mels=["128"])
    assert (other.training.epochs, other.frontend.n_mels, other.frontend.n_frames) == (7, 128, 80)
    assert other.training.quick
    assert not quick_run(image_size=["64", "64"]).frontend.problems()  # the size replaces both


def test_quick_with_preset_raises_user_error() -> None:
    with pytest.raises(UserError, match="--quick does not apply with --preset paper"):
        quick_run(preset=["paper"])


@pytest.mark.parametrize(
    ("id", "point"),
    [  # ids of version 1
        ("3384b20a1e9a", {"model__freeze": "block3", "data__fold": 1}),
        ("3e762a19e451", {"data__fold": 2, "model__weights": "random"}),
    ],
)
def test_load_preset_run_ids_are_those_of_version_1(id: str, point: dict[str, Any]) -> None:
    resolved = {"clip__sr": 16000, "clip__duration": 1.5, "frontend__n_frames": 160, "frontend__fmax": 8000.0}
    assert Run().replace(**load_preset("paper")(point | resolved | {"data__content": CONTENT})).id == id


@pytest.mark.parametrize(
    ("point", "settings"),
    [
        ({"model__backbone": "densenet201"}, {"model__dropout": 0.0}),
        ({"model__backbone": "inception_v3"}, {"model__dropout": 0.5}),
        ({"data__name": "esc50"}, {"training__augment": "waveform", "data__fold": "all"}),
        ({"data__name": "gtzan"}, {"data__fold": "1"}),
    ],
)
def test_load_preset_paper_depends_on_data_and_backbone(point: dict[str, Any], settings: dict[str, Any]) -> None:
    plain = load_preset("paper")({})
    assert load_preset("paper")(point) == plain | point | settings
    assert not settings.keys() & plain.keys()


def test_preset_command_line_overrides_rules_and_later_rules_earlier_ones() -> None:
    preset = read_preset(RULES, "x/study.toml")
    plain = {"training__lr": 1e-4, "training__epochs": 70, "data__fold": "all"}
    assert preset({}) == plain
    assert preset({"model__backbone": "resnet50"}) == plain | {"model__backbone": "resnet50", "model__dropout": 0.0}
    point = {"model__backbone": "densenet201", "data__name": "gtzan", "model__weights": "random", "training__lr": 1.0}
    assert preset(point) == point | {
        "training__epochs": 450,
        "training__milestones": (300, 350),
        "model__dropout": 0.0,
        "data__fold": "1",
    }
    weights_of_a_file = preset({"model__weights": "best.safetensors"})
    assert weights_of_a_file["training__epochs"] == 70


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"lrr": 1}], "unknown option in x, preset 1: 'lrr': did you mean 'lr'?"),
        ([{}, {"lr": "fast"}], "x, preset 2: lr = 'fast': give a number"),
        ([{"lr": -1}], "x, preset 1: --lr -1.0: must be above 0"),
        ([{"when": 3}], "x, preset 1: 'when' is a table"),
        ([{"when": {"dta": "esc50"}}], "unknown condition in x, preset 1: 'dta': did you mean 'data'?"),
        ([{"when": {"data": "esc5"}}], "unknown data in x, preset 1: 'esc5': did you mean 'esc50'"),
    ],
)
def test_read_preset_invalid_table_is_one_line(tables: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_preset(tables, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_preset_unknown_name_raises() -> None:
    with pytest.raises(UserError, match="unknown preset 'rethinking-cn': did you mean 'rethinking-cnn'"):
        load_preset("rethinking-cn")
