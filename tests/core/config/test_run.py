import re

import pytest

from core.config.options import list_problems
from core.config.run import Run
from core.errors import UserError


def test_run_round_trip_is_equal() -> None:
    run = Run().replace(model__freeze="block2", training__milestones=(3, 5), seed=4)
    again = Run.from_dict(run.to_dict())
    assert again == run
    assert again.id == run.id


def test_run_id_depends_on_the_options_of_every_group() -> None:
    run = Run()
    changed = [
        run.replace(seed=1),
        run.replace(data__content="0"),
        run.replace(clip__fit="loop"),
        run.replace(frontend__n_mels=64),
        run.replace(model__freeze="stem"),
        run.replace(training__lr=1e-5),
    ]
    assert len({r.id for r in [run, *changed]}) == 7


def test_from_dict_unknown_key_raises() -> None:
    values = Run().to_dict()
    values["training"]["learning_rat"] = 1
    values["training"].pop("label_smoothing")
    with pytest.raises(UserError, match=re.escape("run.training has the unknown key 'learning_rat'")):
        Run.from_dict(values)


def test_from_dict_missing_key_raises() -> None:
    values = Run().to_dict()
    del values["seed"], values["model"]["cut"]
    with pytest.raises(UserError, match=r"^run lacks seed$"):
        Run.from_dict(values)
    values["seed"] = 0
    with pytest.raises(UserError, match=r"^run.model lacks cut$"):
        Run.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training__lr": 0.0}, "--lr 0.0: must be above 0"),
        ({"training__lr": float("nan")}, "--lr nan: give a number"),
        (
            {"training__optimizer": "adamm"},
            "--optimizer adamm: did you mean 'adam'? choose from adam, adamw, sgd",
        ),
        ({"frontend__hop": 256}, "--hop-length 256 needs --n-fft: give the FFT size too"),
        ({"frontend__image": (0, 9)}, "--image-size 0 9: give a height and a width, from 1 to 100000 pixels each"),
        (
            {"training__live": True, "frontend__stored_as": "float16"},
            "--storage-dtype float16 applies to stored images, and --on-the-fly stores none: leave one out",
        ),
        ({"frontend__fmin": 500.0, "frontend__fmax": 400.0}, "--fmax 400: must be above --fmin 500"),
    ],
)
def test_list_problems_invalid_option_gives_its_message(change: dict[str, object], message: str) -> None:
    assert list_problems(Run().replace(**change)) == [message]


def test_list_problems_several_invalid_options_gives_all() -> None:
    assert len(list_problems(Run().replace(training__lr=-1.0, training__epochs=0, seed=-1))) == 3
    assert list_problems(Run()) == []
