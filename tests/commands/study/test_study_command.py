import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from commands import COMMANDS
from commands.cli import study_schema
from commands.cli.grid import read_execution_options
from commands.cli.parser import command_options, list_flags, make_call
from commands.cli.study_schema import StudySpec, folder_name, list_runnable_studies, read_study
from commands.study.experiment import list_experiment_commands
from commands.study.run import parse_experiments
from core.errors import UserError
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


def written(folder: Path, text: str) -> Path:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "study.toml").write_text(text)
    return folder


def read(name: str, scale: str, given: dict[str, list[str]] | None = None, folder: Path | None = None) -> StudySpec:
    return read_study(name, scale, given or {}, commands=list_experiment_commands(), folder=folder)


def test_options_of_the_command_line_replace_the_files(tmp_path: Path) -> None:
    study = read("mine", "quick", {"epochs": ["7"], "seed": ["0", "1"]}, written(tmp_path, STUDY))
    [experiment] = study.entries
    assert experiment.options == {"epochs": ["7"], "block": ["1", "2"], "seed": ["0", "1"]}
    assert (experiment.item, experiment.command) == ("Figure 1", "freeze")


SHARED = """[experiments.options]
lr = 1e-3
epochs = 4
[experiments.quick]
epochs = 5
block"""


def test_an_experiments_options_hold_at_every_scale_and_the_scales_own_replace_them(tmp_path: Path) -> None:
    text = STUDY.replace("[scales.quick]", "[scales.full]\n[scales.quick]\nlr = 1e-4")
    folder = written(tmp_path, text.replace("[experiments.quick]\nblock", SHARED))
    parser = {scale: read("mine", scale, {}, folder).entries[0].options for scale in ("full", "quick")}
    assert parser["full"] == {"lr": ["0.001"], "epochs": ["4"]}
    assert parser["quick"] == {"lr": ["0.001"], "epochs": ["5"], "block": ["1", "2"]}
    assert read("mine", "full", {"lr": ["1e-5"]}, folder).entries[0].options["lr"] == ["1e-5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "has the unknown key 'titel': did you mean 'title'?"),
        (("item =", "items ="), "has the unknown key 'items': did you mean 'item'?"),
        (('command = "freeze"', 'command = "freez"'), "unknown command in .*'freez': did you mean 'freeze'?"),
        (('item = "Figure 1"\n', ""), "lacks item"),
        (("[scales.quick]", "[scales.quick"), "mine/study.toml: "),
    ],
)
def test_mistakes_in_a_study_are_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        read("mine", "quick", {}, written(tmp_path, STUDY.replace(*change)))
    assert "\n" not in str(caught.value)


BROKEN = [
    ('title = "A report"', "title = 3", "title must be a text"),
    ('title = "A report"', 'title = ""', "title must be a text"),
    ('title = "A report"', "", "lacks title"),
    (STUDY[STUDY.index("[[exp") :], "", "has no [[experiments]]"),
    (STUDY[STUDY.index("[scales") :], "experiments = 3\n[scales.quick]", "write its experiments as [[experiments]]"),
    (STUDY[STUDY.index("[scales") :], "experiments = [3]\n[scales.quick]", "write its experiments as [[experiments]]"),
    ('"Figure 1"', "3", "item must be a text"),
    ('"freeze"', '["freeze"]', "command must be a text"),
    ('"freeze"', '"study"', "'study'"),
    ('"Figure 1"', '"!"', "the item '!' needs a letter or a digit"),
    ("[[exp", '[[experiments]]\nitem = "figure-1"\ncommand = "freeze"\n[[exp', "have the same folder name"),
    ("[experiments.quick]\nblock =", "quick =", "quick must be a table"),
    ('["1", "2"]', "{a = 1}", "must be a text, a number"),
    ('["1", "2"]', "[[1]]", "must be a text, a number"),
    ('["1", "2"]', '"--results"', "must be a text, a number"),
    ('["1", "2"]', "2020-01-01", "must be a text, a number"),
    ('title = "A report"', 'title = "A report"\ntables = 3', "tables must be a table"),
    (
        'title = "A report"',
        'title = "A report"\ntables = {B = 3}',
        "table 'B' must have a list of experiments",
    ),
    ('title = "A report"', 'title = "A report"\ntables = {B = ["C"]}', "unknown experiment in mine/study.toml"),
    ('title = "A report"', 'title = "A report"\ntables = {"Figure 1" = ["Figure 1"]}', "have the same folder name"),
    ('title = "A report"', 'title = "A report"\nfigures = 3', "figures must be a table"),
    ('title = "A report"', 'title = "A report"\nfigures = {B = 3}', "figure 'B' must be a table"),
    ('title = "A report"', 'title = "A report"\nfigures = {B = {of = ["Figure 1"]}}', "figure 'B' lacks figure"),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "bar", of = ["Figure 1"]}}',
        "'bar': did you mean 'bars'",
    ),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "curves"}}',
        "figure 'B' must have a list of experiments",
    ),
    ('title = "A report"', 'title = "A report"\nfigures = {B = {figure = "curves", of = ["C"]}}', "figure 'B': 'C'"),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "curves", off = ["C"]}}',
        "unknown key 'off': did you mean 'of'",
    ),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "bars", of = ["Figure 1"]}}',
        "figure 'B' lacks metric",
    ),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "curves", metric = "f1", of = ["Figure 1"]}}',
        "unknown curve 'f1': choose from test_accuracy",
    ),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "confusion", metric = "f1", of = ["Figure 1"]}}',
        "figure 'B': confusion has no metric",
    ),
    (
        'title = "A report"',
        'title = "A report"\nfigures = {B = {figure = "bars", metric = "f2", of = ["Figure 1"]}}',
        "unknown metric 'f2': did you mean 'f1'",
    ),
    ("[scales.quick]\nepochs = 3", "[scales]\nquick = 3", "scale quick must be a table"),
    ("[scales.quick]", "[scales.options]\n[scales.quick]", "no scale can be called options"),
    ("[experiments.quick]\nblock =", "options = 3\n[experiments.quick]\nblock =", "options must be a table"),
    ("[experiments.quick]\nblock =", "[experiments.option]\nblock =", "unknown key 'option': did you mean 'options'?"),
    ("[scales.quick]\nepochs = 3", "[scales]", "unknown scale of mine: 'quick'"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_whatever_is_wrong_with_a_study_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert STUDY.count(old) == 1
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read("mine", "quick", {}, written(tmp_path, STUDY.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["blok = 3", 'epochs = "many"', "epochs = 0", 'data = "esc5"', "fold = 77"])
def test_a_wrong_option_of_an_experiment_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(study_schema, "FOLDER", tmp_path)
    written(tmp_path, STUDY.replace('block = ["1", "2"]', option))
    with pytest.raises(UserError, match="^mine, 'Figure 1': ") as caught:
        main(["study", "mine", "--scale", "quick", "--dry-run", "--results", str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (written(tmp_path, "") / "mine" / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="mine/study.toml: "):
        read("mine", "quick", {}, tmp_path)


@pytest.mark.parametrize("name", ["/etc", "..", "../mine", "mine/../mine", "mine/", "", "."])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="unknown study"):
        read(name, "quick", {}, written(tmp_path, STUDY))


def test_a_report_without_a_study_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_schema, "FOLDER", tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine has no study.toml: only its published numbers are there"):
        main(["study", "mine"])


def test_every_data_set_has_the_folder_given_for_it(tmp_path: Path) -> None:
    text = STUDY + '[[experiments]]\nitem = "B"\ncommand = "tune"\n[experiments.quick]\nlr = [1e-3, 1e-4]\n'
    text = text.replace("epochs = 3", 'data = ["gtzan", "esc50"]').replace('block = ["1", "2"]', 'data = "esc50"')
    jobs = parse_experiments(read("mine", "quick", {"data-root": ["G", "E"]}, written(tmp_path, text)))
    roots = {job.entry.item: [str(root) for root in read_execution_options(job.call).data_root] for job in jobs}
    assert roots == {"Figure 1": ["G"], "B, for gtzan": ["E"], "B, for esc50": ["G"]}  # as they first come in
    with pytest.raises(UserError, match="--data-root: give one folder for each of esc50, gtzan, in this order"):
        parse_experiments(read("mine", "quick", {"data-root": ["G"]}, written(tmp_path, text)))


def test_experiments_on_other_data_sets_are_planned_with_their_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of one study, whose experiments share a session: the first is of one data set, the second of two."""
    text = STUDY.replace('block = ["1", "2"]', 'data = "esc50"\nblock = 1')
    text += '[[experiments]]\nitem = "Table 2"\ncommand = "freeze"\n[experiments.quick]\n'
    monkeypatch.setattr(
        study_schema, "FOLDER", written(tmp_path, text + 'data = ["urbansound8k", "esc50"]\nblock = 1\n')
    )
    (tmp_path / "mine" / "published.csv").write_text(NUMBERS.splitlines()[0])
    esc = [(f"{1 + k % 5}-{k}-A-{k % 2}.wav", 1 + k % 5, k % 2, "ab"[k % 2], k, "A") for k in range(20)]
    urban = [(f"{k}-{k % 2}-0-0.wav", k, 1 + k % 3, k % 2, ("air_conditioner", "car_horn")[k % 2]) for k in range(12)]
    for folder, table, rows, columns in (
        ("E", "meta/esc50.csv", esc, ["filename", "fold", "target", "category", "src_file", "take"]),
        ("U", "metadata/UrbanSound8K.csv", urban, ["slice_file_name", "fsID", "fold", "classID", "class"]),
    ):
        (tmp_path / folder / table).parent.mkdir(parents=True)
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / folder / table, index=False)
    for name, *_ in esc:
        (tmp_path / "E" / "audio").mkdir(exist_ok=True)
        (tmp_path / "E" / "audio" / name).write_text(name)
    for name, _, fold, *_ in urban:
        (tmp_path / "U" / "audio" / f"fold{fold}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "U" / "audio" / f"fold{fold}" / name).write_text(name)
    small = ["--sr", "8000", "--duration", "0.5", "--n-mels", "32", "--n-frames", "32", "--device", "cpu"]
    roots = ["--data-root", str(tmp_path / "E"), str(tmp_path / "U"), "--results", str(tmp_path / "results")]
    assert main(["study", "--scale", "quick", "--dry-run", *small, *roots, "mine"]) == 0
    assert "4 different runs, 4 to train" in capsys.readouterr().out  # those of the first are among the second's


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
"Figure 3" = { figure = "curves", metric = "train_loss", of = ["Section 2"] }
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


def test_a_report_is_added_as_one_folder_and_never_overwrites_another(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    written(reports, REPORT)
    (reports / "mine" / "published.csv").write_text(NUMBERS)
    (reports / "mine" / "README.md").write_text("# A stranger's report\n")
    monkeypatch.setattr(study_schema, "FOLDER", reports)
    small = ["--sr", "8000", "--duration", "0.5", "--n-mels", "32", "--n-frames", "32", "--device", "cpu"]
    where = ["--data", "folder", "--data-root", str(sounds), "--published-dataset", "their-set", "--threads", "1"]
    results = tmp_path / "results"
    assert main(["study", "--scale", "quick", *where, *small, "--results", str(results), "mine"]) == 0
    [folder] = (results / "studies" / "mine").iterdir()
    table = pd.read_csv(folder / "table-1" / "published.csv", keep_default_na=False, na_values=[""])
    ours = pd.read_csv(folder / "table-1" / "table.csv").set_index("condition")
    best, parameters = table[table["published"].notna()].to_dict("records")
    assert (best["data"], best["epoch"], best["ours"]) == ("their-set", "best", ours.at["none", "accuracy_best_epoch"])
    assert (parameters["metric"], parameters["ours"]) == ("parameters", ours.at["block3", "parameters"])
    summary = pd.read_csv(folder / "summary" / "published.csv").iloc[0]
    assert (summary["backbone"], summary["ours"]) == ("all (1)", ours.at["none", "accuracy"])
    searched = pd.read_csv(folder / "section-2" / "table.csv")
    assert set(searched["lr"]) == {1e-3, 1e-4}
    assert pd.read_csv(folder / "section-2" / "best.csv")["best"].tolist() == [searched["lr"][0]]
    [rate] = pd.read_csv(folder / "section-2" / "published.csv").to_dict("records")
    assert (rate["metric"], rate["ours"], rate["published"]) == ("lr", searched["lr"][0], 3e-4)
    network = pd.read_csv(folder / "figure-9" / "published.csv").set_index("metric")
    assert network["ours"].to_dict() == {"parameters": 3_377_413, "units": 2}
    cells = pd.read_csv(folder / "figure-1" / "published.csv").set_index("condition")
    drawn = pd.read_csv(folder / "figure-1" / "confusion.csv").set_index(["condition", "target", "predicted"])["clips"]
    assert cells["ours"].to_dict() == {
        "low as All": drawn["none", "low", "All"],
        "block3, high as low": drawn["block3", "high", "low"],
    }
    bars = pd.read_csv(folder / "figure-2" / "bars-f1.csv").set_index("condition")["f1"]
    assert bars["Table 1, block3"] == ours.at["block3", "f1"]
    assert list(bars.index[-2:]) == ["Section 2, lr 0.001", "Section 2, lr 0.0001"]
    losses = pd.read_csv(folder / "figure-3" / "learning.csv")
    assert losses[["condition", "measure"]].to_numpy().tolist() == [
        [f"lr {lr}", "train_loss"] for lr in (0.001, 0.0001)
    ]
    page = (folder / "study.md").read_text()
    assert "## Section 2\n" in page
    assert "(figure-2/bars-f1.png)" in page
    assert "2 × InvertedResidual" in page
    assert "75.0 ± 1.0" in page
    assert "about 3,400,000" in page
    alone = ["freeze", "--block", "3", "--preset", "mine", "--epochs", "1", *where, *small, "--results", str(results)]
    assert main(alone) == 0  # of the same runs
    names = {path.name for path in results.glob("freeze/*/published*.csv")}
    assert names == {f"published-mine-{item}.csv" for item in ("summary", "table-1", "figure-1")}
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = [
        "study",
        "mine",
        "--figures-only",
        "--scale",
        "quick",
        *where,
        *small,
        "--results",
        str(results),
        "--seed",
        "1",
    ]
    assert main(other) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    [other_folder] = set((results / "studies" / "mine").iterdir()) - {folder}
    assert "missing (1 of 1)" in (other_folder / "study.md").read_text()
    assert main(["report", "--results", str(results)]) == 0
    html = (results / "report" / "index.html").read_text()
    assert "mine Table 1" in html
    assert "their-set" in html


def test_unknown_study_and_scale_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown study 'rethinking-cn': did you mean 'rethinking-cnn'"):
        read("rethinking-cn", "quick")
    with pytest.raises(UserError, match="unknown scale of rethinking-cnn: 'quik': did you mean 'quick'"):
        read("rethinking-cnn", "quik")


@pytest.mark.parametrize("name", list_runnable_studies())
@pytest.mark.parametrize("scale", ["full", "quick"])
def test_every_study_has_only_options_that_its_commands_take(name: str, scale: str) -> None:
    """What a scale says of every experiment is not for a command without runs; all else is for its own."""
    content = tomllib.loads((study_schema.STUDIES_FOLDER / name / "study.toml").read_text())
    for experiment in read(name, scale).entries:
        own = list_flags(command_options(COMMANDS[experiment.command]))
        common = () if getattr(COMMANDS[experiment.command], "plans", False) else content["scales"][scale]
        words = {f: v for f, v in experiment.options.items() if f not in common or f in own}
        make_call(experiment.command, COMMANDS[experiment.command], words)


def test_an_experiment_takes_one_network_at_a_time(tmp_path: Path) -> None:
    text = STUDY + '[[experiments]]\nitem = "Layers"\ncommand = "network"\n'
    given = {"backbone": ["resnet18", "alexnet"], "fold": ["all"]}
    jobs = parse_experiments(read("mine", "quick", given, written(tmp_path, text)))
    networks = {job.entry.item: job.call.command.backbone for job in jobs[1:]}
    assert networks == {"Layers, for resnet18": "resnet18", "Layers, for alexnet": "alexnet"}
    assert [job.plans for job in jobs] == [True, False, False]


def test_a_dry_run_says_how_small_a_difference_could_be_found(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_schema, "FOLDER", tmp_path)
    more = '[[experiments]]\nitem = "B"\ncommand = "cutoff"\n[[experiments]]\nitem = "C"\ncommand = "network"\n'
    written(tmp_path, 'title = "R"\nsource = "S"\n' + STUDY.split('2020"\n')[1] + more)
    small = ["--data", "folder", "--data-root", str(sounds), "--sr", "8000", "--duration", "0.5", "--n-frames", "32"]
    results = ["--results", str(tmp_path / "results"), "--device", "cpu", "--dry-run"]
    assert main(["study", "mine", "--scale", "quick", *small, "--fold", "all", *results]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "to train, at most about" in said
    assert said.count("Power: where differences of folds spread by 2.0 points") == 1
    assert "Figure 1, B: Power: " in said
    assert not list(tmp_path.glob("results/runs/*"))


def test_slug_names_a_folder() -> None:
    assert [folder_name(item) for item in ("Figure 2a", "Model Cutoff")] == ["figure-2a", "model-cutoff"]


def test_quick_study_answers_every_item(sounds: Path, tmp_path: Path) -> None:
    small = ["--sr", "8000", "--duration", "0.5", "--n-mels", "32", "--n-frames", "32", "--epochs", "1"]
    where = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path), "--device", "cpu"]
    assert main(["study", "rethinking-cnn", "--scale", "quick", *where, *small, "--threads", "1"]) == 0
    [folder] = (tmp_path / "studies" / "rethinking-cnn").iterdir()
    page = (folder / "study.md").read_text()
    for item in [e.item for e in read("rethinking-cnn", "quick").entries] + ["Table III"]:
        assert f"## {item}\n" in page
        assert list((folder / folder_name(item)).glob("*.tex"))
