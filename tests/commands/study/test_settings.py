"""Settings of the included studies: the tables in their READMEs agree with the runs of the full scale."""

import pkgutil
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile
from torch import nn

import ablations
from ablations.planning.experiment import Experiment
from ablations.planning.grid import read_execution_options
from ablations.planning.study_schema import StudySpec, list_runnable_studies, load_preset, read_study
from analysis.metrics.condition_summary import dataset_and_backbone
from analysis.published.class_level import split_class
from analysis.published.numbers import SIZE_METRICS, load_published, setting_columns
from analysis.published.settings import list_setting_differences
from commands.study.combined_items import VALUE_SEPARATOR
from commands.study.experiment import list_experiment_commands, prepare_experiment
from commands.study.run import list_study_settings, parse_experiments
from commands.study.settings import ITEM_SEPARATOR, Setting
from core.config.run import Run
from core.datasets.sets.gtzan import GENRES
from core.models.build_network import build_network
from core.session import Session

TITLE = "## Settings that the text leaves open"
COLUMNS = ["Setting", "Option", "Our value", "Items", "Remark"]


class Row(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    setting
        Name of the setting in words.
    option
        Options with their dashes, or ``module:CONSTANT`` for a value that is no option, each in backquotes.
    value
        The value of all of them.
    items
        Items of study.toml separated by ``; ``, ``all``, or ``others``: those that no other row of the option names.
    remark
        Reason, or any other note; may be empty.
    """

    setting: str
    option: str
    value: str
    items: str
    remark: str


def read_table(study: str) -> list[Row]:
    text = (ablations.STUDIES_FOLDER / study / "README.md").read_text()
    assert text.count(TITLE) == 1
    lines = [line for line in text.partition(TITLE)[2].partition("\n## ")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == COLUMNS
    return [Row(*row) for row in rows[2:]]


def make_gtzan(folder: Path) -> Path:
    for genre in GENRES:
        (folder / genre).mkdir(parents=True)
        for number in range(20):
            (folder / genre / f"{genre}.{number:05d}.wav").write_bytes(f"{genre} {number}".encode())
    return folder


def make_features(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((200, 4)), columns=["a", "b", "c", "d"])
    table.insert(0, "filename", [f"{genre}.{number:05d}.wav" for genre in GENRES for number in range(20)])
    table["label"] = [genre for genre in GENRES for _ in range(20)]
    folder.mkdir()
    table.to_csv(folder / "features_30_sec.csv", index=False)
    return folder / "features_30_sec.csv"


def make_esc50(folder: Path) -> Path:
    rows = [(f"{fold}-{fold}{k}-A-{k}.wav", fold, k, f"{fold}{k}") for fold in range(1, 6) for k in range(2)]
    for name, *_ in rows:
        (folder / "audio").mkdir(parents=True, exist_ok=True)
        (folder / "audio" / name).write_bytes(name.encode())
    table = pd.DataFrame(rows, columns=["filename", "fold", "target", "src_file"])
    table = table.assign(category=table["target"].map("sound{}".format), esc10=True, take="A")
    (folder / "meta").mkdir()
    table.to_csv(folder / "meta" / "esc50.csv", index=False)
    return folder


def make_urbansound8k(folder: Path) -> Path:
    rows = [(f"{fold}{k}-{k}-0-0.wav", f"{fold}{k}", fold, k) for fold in range(1, 11) for k in range(2)]
    for name, _, fold, _ in rows:
        (folder / "audio" / f"fold{fold}").mkdir(parents=True, exist_ok=True)
        (folder / "audio" / f"fold{fold}" / name).write_bytes(name.encode())
    table = pd.DataFrame(rows, columns=["slice_file_name", "fsID", "fold", "classID"])
    table["class"] = table["classID"].map(["air_conditioner", "car_horn"].__getitem__)
    (folder / "metadata").mkdir()
    table.assign(start=0, end=1, salience=1).to_csv(folder / "metadata" / "UrbanSound8K.csv", index=False)
    return folder


def make_thirteen_classes(folder: Path) -> Path:
    for number in range(13):
        (folder / f"class{number:02d}").mkdir(parents=True)
        for k in range(10):
            y = np.random.default_rng([number, k]).uniform(-0.3, 0.3, 800)
            soundfile.write(folder / f"class{number:02d}" / f"{k}.wav", y, 8_000)
    return folder


DATA_SETS: dict[str, Callable[[Path], Path]] = {
    "gtzan": make_gtzan,
    "features": make_features,
    "esc50": make_esc50,
    "urbansound8k": make_urbansound8k,
    "thirteen-classes": make_thirteen_classes,
}
DIFFERENCES = {  # from what the report states
    "genres": {  # ten folds instead of one split; no early stopping without validation clips ("Five folds")
        "test-folds 10 instead of 1",
        "schedule constant instead of plateau",
        "patience 0 instead of 5",
        "monitor loss instead of accuracy",
    },
    "nsynth-transfer": {"freeze block5 instead of none", "freeze block4 instead of none"},  # trainable parameters
}
WITHOUT_RUNS = {"rethinking-cnn": {("Section I", "alexnet")}}  # a number of another report
PUBLISHED_ONLY_ITEMS = {"Section II-B", "Section III-E"}
ORDER = {  # of the data sets of a study, as for --data-root
    "genres": ["gtzan", "features"],
    "nsynth-transfer": ["nsynth-valid"],
    "rethinking-cnn": ["esc50", "gtzan", "urbansound8k"],
    "thirteen-classes-mobile": ["thirteen-classes"],
    "thirteen-classes-padding": ["thirteen-classes"],
}


@pytest.mark.parametrize("name", list_runnable_studies())
def test_readme_settings_agree_with_full_scale(name: str, nsynth: Path, session: Session, tmp_path: Path) -> None:
    """Small stand-ins in the layout of each data set take the place of the data."""
    roots = [str(DATA_SETS[data](tmp_path / data) if data in DATA_SETS else nsynth) for data in ORDER[name]]
    study = read_study(name, "full", {"data-root": roots}, commands=list_experiment_commands())
    planned = parse_experiments(study)
    experiments = [prepare_experiment(one.call, session) for one in planned]
    settings = list_study_settings(planned, experiments)
    check_published_numbers(study, [one.spec.item for one in planned], experiments)
    rows = read_table(name)
    for row in rows:
        for option in re.findall("`(.+?)`", row.option):
            check_row(row, option, settings, rows)
    text = (ablations.STUDIES_FOLDER / name / "README.md").read_text()
    stated = re.search("The text states the other options: (.+?)[.]\n", text, re.DOTALL)
    assert stated
    known = {option for row in rows for option in re.findall("`(--.+?)`", row.option)}
    assert {setting.flag for setting in settings} == known | set(re.findall("`(--.+?)`", stated[1]))


def check_published_numbers(study: StudySpec, items: Sequence[str], experiments: Sequence[Experiment]) -> None:
    """Compare the settings that the report states for its numbers and statements with the runs of the full scale."""
    published = load_published(study.name, folder=ablations.STUDIES_FOLDER)
    settings = setting_columns(published)
    all_items = {*study.combined_items, *(item.partition(VALUE_SEPARATOR)[0] for item in items)}
    assert set(published["item"]) - all_items <= PUBLISHED_ONLY_ITEMS
    differences, without_runs = set(), set()
    for row in published[published["item"].isin(all_items) & (published["backbone"] != "")].to_dict("records"):
        members = study.combined_items.get(row["item"], (row["item"],))
        plans = [
            experiment.plan
            for item, experiment in zip(items, experiments, strict=True)
            if item.partition(VALUE_SEPARATOR)[0] in members
        ]
        network = {"data": row["data"], "backbone": row["backbone"]}
        groups = [
            (values["condition"], [each.run for each in group], plan.datasets)
            for plan in plans
            for values, group in plan.groups()
            if dataset_and_backbone(group[0]) == network
        ]
        if not groups and row["metric"] not in SIZE_METRICS and row["claim"] != "stated":
            without_runs.add((row["item"], row["backbone"]))
        for condition, runs, datasets in groups:
            if split_class(row["condition"])[0] in ("", condition):
                differences |= set(list_setting_differences({key: row[key] for key in settings}, runs, datasets))
    assert differences == DIFFERENCES.get(study.name, set())
    assert without_runs == WITHOUT_RUNS.get(study.name, set())


def check_row(row: Row, option: str, settings: Sequence[Setting], rows: Sequence[Row]) -> None:
    """Compare one option of a row with the runs, or a constant with the code."""
    if not option.startswith("--"):
        assert str(pkgutil.resolve_name(option)) == row.value, row
        return
    found = {item: one.value for one in settings if one.flag == option for item in one.items}
    items = list(found) if row.items in ("all", "others") else row.items.split(ITEM_SEPARATOR)
    if row.items == "others":
        others = [other.items.split(ITEM_SEPARATOR) for other in rows if f"`{option}`" in other.option]
        items = [item for item in items if not any(item in names for names in others)]
    assert items, row
    assert {item: found.get(item) for item in items} == dict.fromkeys(items, row.value), (row, option)


@pytest.mark.parametrize("name", ["thirteen-classes-mobile", "thirteen-classes-padding"])
def test_full_scale_of_thirteen_classes_leaves_out_damaged_recordings(name: str) -> None:
    study = read_study(name, "full", {}, commands=list_experiment_commands())
    planned = [one for one in parse_experiments(study) if one.has_runs]
    assert {read_execution_options(one.call).on_bad_clip for one in planned} == {"skip"}


@pytest.mark.parametrize(
    ("study", "backbone", "rates"),
    [
        ("thirteen-classes-padding", "googlenet_2014", {0.4, 0.7}),
        ("thirteen-classes-padding", "resnet34_conv3", set()),
        ("thirteen-classes-mobile", "mobilenet_v1", set()),
        ("genres", "convolneunet", {0.5}),
        ("genres", "vgg16", {0.5}),
        ("genres", "googlenet", set()),
    ],
)
def test_preset_gives_networks_their_dropout_rates(study: str, backbone: str, rates: set[float]) -> None:
    """The layers that are active are those of the report or of its network."""
    small = {"data__name": "thirteen-classes", "model__weights": "random", "model__backbone": backbone}
    point = load_preset(study)(small | {"frontend__image": (64, 64)})
    network = build_network(Run().replace(**{key: value for key, value in point.items() if key != "data__fold"}), 13)
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} - {0.0} == rates
