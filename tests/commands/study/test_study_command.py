import re
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from small_runs import ON_CPU, SIZE

import ablations
from ablations.planning.call import command_options, list_flags, make_call
from ablations.planning.grid import read_execution_options
from ablations.planning.study_schema import StudySpec, folder_name, list_runnable_studies, read_study
from commands import COMMANDS
from commands.study.experiment import list_experiment_commands
from commands.study.run import parse_experiments
from core.errors import ResultsError, UserError
from run_ablation import main

STUDY = """
title = "A report"
source = "Somebody 2020"
[scales.quick]
epochs = 3
[[experiments]]
item = "Figure 1"
command = "freeze"
[experiments.quick]
block = ["1", "2"]
"""


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the folder of all studies by an empty one."""
    folder = tmp_path / "studies"
    folder.mkdir()
    monkeypatch.setattr(ablations, "STUDIES_FOLDER", folder)
    return folder


def write_study(studies: Path, text: str) -> None:
    (studies / "mine").mkdir(exist_ok=True)
    (studies / "mine" / "study.toml").write_text(text)


def read(name: str, scale: str, given: dict[str, list[str]] | None = None) -> StudySpec:
    return read_study(name, scale, given or {}, commands=list_experiment_commands())


def test_read_study_command_line_overrides_file(studies: Path) -> None:
    write_study(studies, STUDY)
    [experiment] = read("mine", "quick", {"epochs": ["7"], "seed": ["0", "1"]}).experiments
    assert experiment.options == {"epochs": ["7"], "block": ["1", "2"], "seed": ["0", "1"]}
    assert (experiment.item, experiment.command) == ("Figure 1", "freeze")


EXPERIMENT_OPTIONS = """[experiments.options]
lr = 1e-3
epochs = 4
[experiments.quick]
epochs = 5
block"""


def test_read_study_options_of_one_scale_override_those_of_all_scales(studies: Path) -> None:
    text = STUDY.replace("[scales.quick]", "[scales.full]\n[scales.quick]\nlr = 1e-4")
    write_study(studies, text.replace("[experiments.quick]\nblock", EXPERIMENT_OPTIONS))
    options = {scale: read("mine", scale).experiments[0].options for scale in ("full", "quick")}
    assert options["full"] == {"lr": ["0.001"], "epochs": ["4"]}
    assert options["quick"] == {"lr": ["0.001"], "epochs": ["5"], "block": ["1", "2"]}


TITLE = 'title = "A report"'
MISTAKES = [  # text of the study, its replacement, and place and remedy in the message
    ("title =", "titel =", "mine/study.toml: unknown key 'titel': did you mean 'title'?"),
    ('"freeze"', '"freez"', "'freez': did you mean 'freeze'?"),
    ('item = "Figure 1"\n', "", "experiment 1: add the key 'item'"),
    ("[scales.quick]", "[scales.quick", "mine/study.toml: "),
    ('"Figure 1"', '"!"', "item '!' needs a letter"),
    ("[[exp", '[[experiments]]\nitem = "figure-1"\ncommand = "freeze"\n[[exp', "rename one of the items"),
    ('["1", "2"]', "{a = 1}", "quick: block: give `bool | int | float | str | array`"),
    ('["1", "2"]', '"--results"', "block = '--results': give a value"),
    (TITLE, TITLE + '\ntables = {B = ["C"]}', "unknown experiment in mine/study.toml, 'B': 'C'"),
    (TITLE, TITLE + '\nfigures = {B = {figure = "bars", of = ["Figure 1"]}}', "figure 'B': add the key 'metric'"),
    (
        TITLE,
        TITLE + '\nfigures = {B = {figure = "curves", metric = "f1", of = ["Figure 1"]}}',
        "'f1': choose from test_accuracy",
    ),
    ("[scales.quick]\nepochs = 3", "[scales]", "mine/study.toml: add a table of scales"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_read_study_mistake_raises_one_line(studies: Path, old: str, new: str, message: str) -> None:
    assert STUDY.count(old) == 1
    write_study(studies, STUDY.replace(old, new))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read("mine", "quick")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["blok = 3", "fold = 77"])
def test_study_wrong_option_names_the_experiment(studies: Path, tmp_path: Path, option: str) -> None:
    write_study(studies, STUDY.replace('block = ["1", "2"]', option))
    with pytest.raises(UserError, match="^mine, 'Figure 1': ") as caught:
        main(["study", "mine", "--scale", "quick", "--dry-run", "--results", str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/etc", "mine/../mine"])
def test_read_study_path_as_name_is_unknown(studies: Path, name: str) -> None:
    write_study(studies, STUDY)
    with pytest.raises(UserError, match="unknown study"):
        read(name, "quick")


def test_study_without_toml_names_the_others(studies: Path) -> None:
    (studies / "other").mkdir()
    write_study(studies, STUDY)
    with pytest.raises(UserError, match=r"other .* no study.toml; choose from mine"):
        main(["study", "other"])


def test_parse_experiments_assigns_data_roots_in_order(studies: Path) -> None:
    text = STUDY + '[[experiments]]\nitem = "B"\ncommand = "tune"\n[experiments.quick]\nlr = [1e-3, 1e-4]\n'
    text = text.replace("epochs = 3", 'data = ["gtzan", "esc50"]').replace('block = ["1", "2"]', 'data = "esc50"')
    write_study(studies, text)
    planned = parse_experiments(read("mine", "quick", {"data-root": ["G", "E"]}))
    roots = {one.spec.item: [str(root) for root in read_execution_options(one.call).data_root] for one in planned}
    assert roots == {"Figure 1": ["G"], "B, for gtzan": ["E"], "B, for esc50": ["G"]}
    with pytest.raises(UserError, match="--data-root: give one folder for each of esc50, gtzan, in this order"):
        parse_experiments(read("mine", "quick", {"data-root": ["G"]}))


REPORT = """
title = "A stranger's report"
source = "Somebody 2020"
[[preset]]
lr = 1e-3
[[preset]]
when = { weights = "random" }
epochs = 2
[scales.quick]
preset = "mine"
backbone = "efficientnet_lite0"
epochs = 1
[[experiments]]
item = "Table 1"
command = "freeze"
[experiments.quick]
block = 3
[[experiments]]
item = "Section 2"
command = "tune"
[experiments.quick]
lr = [1e-3, 1e-4]
validation = 0.4
[[experiments]]
item = "Figure 9"
command = "network"
[experiments.quick]
classes = 5
[tables]
"Summary" = ["Table 1"]
[figures]
"Figure 1" = { figure = "confusion", of = ["Table 1"] }
"Figure 2" = { figure = "bars", metric = "f1", of = ["Table 1", "Section 2"] }
"Figure 3" = { figure = "curves", metric = ["train_loss", "test_loss"], of = ["Section 2"] }
"""
NUMBERS = """item,data,backbone,condition,metric,epoch,value,std,approximate
Table 1,their-set,efficientnet_lite0,none,accuracy,best,0.75,0.01,False
Table 1,their-set,efficientnet_lite0,block3,parameters,,3400000,,True
Section 2,their-set,,best,lr,,0.0003,,False
Figure 9,their-set,efficientnet_lite0,base,parameters,,3400000,,True
Figure 9,their-set,efficientnet_lite0,block1,units,,3,,False
Summary,their-set,,none,accuracy,,0.5,,True
Figure 1,their-set,efficientnet_lite0,low as All,clips,,7,,False
Figure 1,their-set,efficientnet_lite0,"block3, high as low",clips,,1,,False
"""


def test_study_added_as_a_folder_writes_every_item(sounds: Path, studies: Path, tmp_path: Path) -> None:
    """Other seeds get another results folder, a plain ablation its comparison, and the report page the numbers."""
    write_study(studies, REPORT)
    (studies / "mine" / "published.csv").write_text(NUMBERS)
    where = ["--data", "folder", "--data-root", str(sounds), "--published-dataset", "their-set", *SIZE, *ON_CPU]
    results = tmp_path / "results"
    assert main(["study", "--scale", "quick", *where, "--results", str(results), "mine"]) == 0
    [folder] = (results / "studies" / "mine").iterdir()
    table = pd.read_csv(folder / "table-1" / "published-numbers.csv", keep_default_na=False, na_values=[""])
    ours = pd.read_csv(folder / "table-1" / "table.csv").set_index("condition")
    best, parameters = table.to_dict("records")
    assert (best["data"], best["epoch"], best["ours"]) == ("their-set", "best", ours.at["none", "accuracy_best_epoch"])
    assert (parameters["metric"], parameters["ours"]) == ("parameters", ours.at["block3", "parameters"])
    summary = pd.read_csv(folder / "summary" / "published-numbers.csv").iloc[0]
    assert (summary["row"], summary["ours"]) == ("none (efficientnet_lite0)", ours.at["none", "accuracy"])
    searched = pd.read_csv(folder / "section-2" / "table.csv")
    assert set(searched["lr"]) == {1e-3, 1e-4}
    assert pd.read_csv(folder / "section-2" / "best.csv")["best"].tolist() == [searched["lr"][0]]
    [rate] = pd.read_csv(folder / "section-2" / "published-numbers.csv").to_dict("records")
    assert (rate["metric"], rate["ours"], rate["published"]) == ("lr", searched["lr"][0], 3e-4)
    network = pd.read_csv(folder / "figure-9" / "published-numbers.csv").set_index("metric")
    assert network["ours"].to_dict() == {"parameters": 3_377_413, "units": 2}
    cells = pd.read_csv(folder / "figure-1" / "published-numbers.csv").set_index("condition")
    drawn = pd.read_csv(folder / "figure-1" / "confusion.csv").set_index(["condition", "target", "predicted"])["clips"]
    assert cells["ours"].to_dict() == {
        "low as All": drawn["none", "low", "All"],
        "block3, high as low": drawn["block3", "high", "low"],
    }
    bars = pd.read_csv(folder / "figure-2" / "bars-f1.csv").set_index("condition")["f1"]
    assert bars["efficientnet_lite0 (Table 1), block3"] == ours.at["block3", "f1"]
    assert list(bars.index[-2:]) == [f"efficientnet_lite0 (Section 2), lr {lr}" for lr in (0.001, 0.0001)]
    losses = pd.read_csv(folder / "figure-3" / "learning.csv")
    assert losses[["condition", "measure"]].to_numpy().tolist() == [
        [f"lr {lr}", loss] for lr in (0.001, 0.0001) for loss in ("train_loss", "test_loss")
    ]
    page = (folder / "study.md").read_text()
    assert "## Section 2\n" in page
    assert "(figure-2/bars-f1.png)" in page
    assert "2 × InvertedResidual" in page
    assert "75.0 ± 1.0" in page
    assert "about 3,400,000" in page
    alone = ["freeze", "--block", "3", "--preset", "mine", "--epochs", "1", *where, "--results", str(results)]
    assert main(alone) == 0  # of the same runs
    names = {path.name for path in results.glob("freeze/*/published*.csv")}
    items = ("summary", "table-1", "figure-1")
    assert names == {f"published-mine-{item}{end}.csv" for item in items for end in ("", "-numbers")}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = ["study", "mine", "--figures-only", "--scale", "quick", "--seed", "1"]
    assert main([*other, *where, "--results", str(results)]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    [other_folder] = set((results / "studies" / "mine").iterdir()) - {folder}
    assert "missing (1 of 1)" in (other_folder / "study.md").read_text()
    assert main(["report", "--results", str(results)]) == 0
    html = (results / "report" / "index.html").read_text()
    assert "mine Table 1" in html
    assert "their-set" in html


def test_read_study_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="'rethinking-cn': did you mean 'rethinking-cnn'"):
        read("rethinking-cn", "quick")
    with pytest.raises(UserError, match="'quik': did you mean 'quick'"):
        read("rethinking-cnn", "quik")


@pytest.mark.parametrize("name", list_runnable_studies())
@pytest.mark.parametrize("scale", ["full", "quick"])
def test_included_study_has_only_options_of_its_commands(name: str, scale: str) -> None:
    """Only commands without runs may lack an option of the scale."""
    content = tomllib.loads((ablations.STUDIES_FOLDER / name / "study.toml").read_text())
    for experiment in read(name, scale).experiments:
        own = list_flags(command_options(COMMANDS[experiment.command]))
        common = () if getattr(COMMANDS[experiment.command], "plans", False) else content["scales"][scale]
        words = {f: v for f, v in experiment.options.items() if f not in common or f in own}
        make_call(experiment.command, COMMANDS[experiment.command], words)


def test_parse_experiments_splits_network_by_backbone(studies: Path) -> None:
    text = STUDY + '[[experiments]]\nitem = "Layers"\ncommand = "network"\n'
    given = {"backbone": ["resnet18", "alexnet"], "fold": ["all"]}
    write_study(studies, text)
    planned = parse_experiments(read("mine", "quick", given))
    networks = {one.spec.item: one.call.command.backbone for one in planned[1:]}
    assert networks == {"Layers, for resnet18": "resnet18", "Layers, for alexnet": "alexnet"}
    assert [one.has_runs for one in planned] == [True, False, False]


def test_study_dry_run_prints_power_and_trains_nothing(
    sounds: Path, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = '[[experiments]]\nitem = "B"\ncommand = "cutoff"\n[experiments.options]\nblock = [1, 2]\n'
    more += '[[experiments]]\nitem = "C"\ncommand = "network"\n'
    write_study(studies, STUDY + more)
    small = ["--data", "folder", "--data-root", str(sounds), "--sr", "8000", "--duration", "0.5", "--n-frames", "32"]
    results = ["--results", str(tmp_path / "results"), "--device", "cpu", "--dry-run"]
    assert main(["study", "mine", "--scale", "quick", *small, "--fold", "all", *results]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("no groups") == 1
    output = " ".join(captured.out.split())
    assert "to train, at most about" in output
    assert output.count("Power: ") == 1
    assert "Figure 1, B: Power: " in output
    assert "Settings of all items: --data folder, " in output
    assert "Settings of Figure 1: " in output
    assert not list(tmp_path.glob("results/runs/*"))


def test_quick_study_writes_every_item(sounds: Path, tmp_path: Path) -> None:
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
    assert main(["study", "rethinking-cnn", "--scale", "quick", *where, *SIZE, "--epochs", "1", *ON_CPU]) == 0
    [folder] = (tmp_path / "studies" / "rethinking-cnn").iterdir()
    page = (folder / "study.md").read_text()
    for item in [e.item for e in read("rethinking-cnn", "quick").experiments] + ["Table III"]:
        assert f"## {item}\n" in page
        assert list((folder / folder_name(item)).glob("*.tex"))


ATTRIBUTION_STUDY = """
title = "Maps"
source = "Somebody 2020"
[scales.quick]
epochs = 1
[[experiments]]
item = "Figure 1"
command = "attribute"
[[experiments]]
item = "Table 1"
command = "freeze"
[experiments.options]
block = 4
[tables]
"Summary" = ["Figure 1"]
"""


def test_figures_only_leaves_out_maps_of_missing_runs(
    sounds: Path, studies: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_study(studies, ATTRIBUTION_STUDY)
    (studies / "mine" / "published.csv").write_text(NUMBERS)
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path / "results"), "--device", "cpu"]
    assert main(["study", "mine", "--figures-only", "--scale", "quick", *where]) == 0
    streams = capfd.readouterr()
    assert re.search(r"Figure 1: left out: run \w+ is missing", (streams.out + streams.err).replace("\n", " "))
    [folder] = (tmp_path / "results" / "studies" / "mine").iterdir()
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["figure-9", "section-2", "table-1"]
    titles = re.findall("^## (.*)", (folder / "study.md").read_text(), re.MULTILINE)
    assert titles == ["Table 1", "Section 2", "Figure 9"]  # the last two have published numbers only


def test_figures_only_unreadable_results_end_the_command(
    sounds: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(studies, ATTRIBUTION_STUDY)
    (studies / "mine" / "published.csv").write_text(NUMBERS)
    monkeypatch.setattr("analysis.attribution.pipeline.open_run", Mock(side_effect=ResultsError("no rights")))
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path / "results"), "--device", "cpu"]
    with pytest.raises(ResultsError, match="no rights"):
        main(["study", "mine", "--figures-only", "--scale", "quick", *where])
