"""The command ``predict``: predictions, scores and errors."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.metrics import accuracy_score, balanced_accuracy_score, classification_report, confusion_matrix
from small_runs import SMALL

from core.config.execution import ExecutionOptions
from core.datasets import load_dataset, select
from core.errors import UserError
from core.session import Session
from core.store.run_store import Store
from core.training import metrics
from run_ablation import main

CLASSES = ["high", "low", "middle"]


@pytest.fixture(scope="module")
def results(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with two finished runs that differ in the seed, and one without held-out clips."""
    root = tmp_path_factory.mktemp("results")
    words = ["--data", "folder", "--data-root", str(sounds), "--results", str(root), *SMALL]
    assert (
        main(["compare", "--freeze", "last", "--normalise", "train", "--holdout", "0.2", "--seed", "0", "1", *words])
        == 0
    )
    assert main(["compare", "--freeze", "last", *words]) == 0
    return root


@pytest.fixture
def predict(results: Path, tmp_path: Path):
    """Return a function that predicts with the first run in a copy of the results and returns the written folder."""
    store = tmp_path / "results"
    shutil.copytree(results / "runs", store / "runs")

    def run(words: str, runs: str = "") -> Path:
        line = ["predict", *words.split(), "--run", *(runs.split() or [run_ids(results)[0]]), "--results", str(store)]
        assert main([*line, "--device", "cpu", "--threads", "1"]) == 0
        return max((store / "predict").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)

    return run


def run_ids(results: Path) -> list[str]:
    """Return the ids of the runs that differ in the seed, by seed."""
    records = [record for record in Store(results).records() if record.run.data.set_aside]
    return [record.id for record in sorted(records, key=lambda record: record.run.seed)]


def write_m4a(path: Path, y: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray((y * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def new(sounds: Path, tmp_path: Path) -> Path:
    """Return a folder of M4A files at different depths, with a broken file and a text file."""
    root = tmp_path / "new"
    for label in CLASSES:
        for number in (0, 1):
            y, _ = soundfile.read(sounds / label / f"{number}.wav", dtype="float32")
            write_m4a(root / ("deep/er" if number else "") / f"{label}{number}.m4a", y)
    (root / "deep" / "broken.m4a").write_bytes((root / "low0.m4a").read_bytes()[:900])
    (root / "readme.txt").write_text("no recording")
    return root


def test_predict_probabilities_are_those_of_the_run(predict, results: Path, sounds: Path) -> None:
    folder = predict(f"{sounds}")
    frame = pd.read_csv(folder / "predictions.csv")
    assert list(frame) == ["file", "predicted", "probability", "part", *(f"p_{name}" for name in CLASSES)]
    probs = frame[[f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert frame["predicted"].tolist() == [CLASSES[k] for k in probs.argmax(axis=1)]
    np.testing.assert_array_equal(frame["probability"], probs.max(axis=1))
    clips, _, logits = Store(results).predictions(run_ids(results)[0])
    own = frame.set_index("file").loc[clips, [f"p_{name}" for name in CLASSES]]
    np.testing.assert_allclose(own.to_numpy(), metrics.softmax(logits), atol=1e-5)
    assert len(frame) == 30
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "predictions.parquet"), frame)


def test_predict_several_networks_are_averaged(predict, results: Path, sounds: Path) -> None:
    one, other = run_ids(results)
    alone = [pd.read_csv(predict(f"{sounds / 'low'}", run) / "predictions.csv") for run in (one, other)]
    both = predict(f"{sounds / 'low'}", f"{one} {other} {one}")
    frame = pd.read_csv(both / "predictions.csv")
    expected = (alone[0].filter(like="p_") + alone[1].filter(like="p_")) / 2
    np.testing.assert_allclose(frame.filter(like="p_"), expected, rtol=1e-6)
    assert predict(f"{sounds / 'low'} --all-seeds", one) == both
    assert json.loads((both / "analysis.json").read_text())["runs"] == [one, other]


@pytest.fixture
def louder(sounds: Path, tmp_path: Path) -> Path:
    """Return a folder with the recordings of `sounds`, each of them louder, so that no file is identical."""
    for file in sorted(sounds.rglob("*.wav")):
        y, sr = soundfile.read(file)
        (tmp_path / "louder" / file.parent.name).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "louder" / file.relative_to(sounds), 1.5 * y, sr)
    return tmp_path / "louder"


def test_predict_scores_are_those_of_sklearn(predict, results: Path, louder: Path) -> None:
    folder = predict(f"{louder} --labels {louder}")
    frame = pd.read_csv(folder / "predictions.csv")
    assert frame["true"].tolist() == [path.split("/")[0] for path in frame["file"]]
    assert frame["correct"].tolist() == (frame["true"] == frame["predicted"]).tolist()
    (scores,) = pd.read_csv(folder / "table.csv").to_dict("records")
    assert "part" not in scores
    assert scores["accuracy"] == pytest.approx(accuracy_score(frame["true"], frame["predicted"]))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(frame["true"], frame["predicted"]))
    report = classification_report(frame["true"], frame["predicted"], output_dict=True, zero_division=0)
    for row in pd.read_csv(folder / "classes.csv").to_dict("records"):
        theirs = report[row["class"]]
        assert [row["precision"], row["recall"], row["f1"], row["clips"]] == pytest.approx(list(theirs.values()))
    cells = pd.read_csv(folder / "confusion.csv")
    counted = cells[(cells["target"] != "All") & (cells["predicted"] != "All")]["clips"].to_numpy().reshape(3, 3)
    np.testing.assert_array_equal(counted, confusion_matrix(frame["true"], frame["predicted"]))
    assert scores["test_accuracy"] == Store(results).finished(run_ids(results)[0]).metrics.accuracy
    assert (folder / "confusion.png").exists()


def test_predict_clips_of_the_run_are_scored_separately(
    predict, results: Path, sounds: Path, louder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All parts of the run in one folder, under other names, with six new recordings and held-out clips."""
    everything = tmp_path / "everything"
    for label in CLASSES:
        (everything / label).mkdir(parents=True)
        for k in range(10):
            shutil.copy(sounds / label / f"{k}.wav", everything / label / f"take {k}.wav")
        for k in range(2):
            shutil.copy(louder / label / f"{k}.wav", everything / label / f"new {k}.wav")
    folder = predict(f"{everything} --labels {everything}")
    (record,) = (record for record in Store(results).records() if record.id == run_ids(results)[0])
    dataset = select(load_dataset("folder", sounds), set_aside=0.2)
    split = dataset.split(record.run.data.fold, validation=record.run.data.validation)
    expected = {f"{label}/new {k}.wav": "new" for label in CLASSES for k in range(2)}
    for name, rows in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        for path in dataset.clips["path"].iloc[rows]:
            expected[path.replace("/", "/take ")] = name
    expected |= {path.replace("/", "/take "): "new" for path in dataset.holdout["path"]}
    frame = pd.read_csv(folder / "predictions.csv").set_index("file")
    assert frame["part"].to_dict() == expected
    said = " ".join(capsys.readouterr().err.split())
    counts = frame["part"].value_counts()
    assert (
        f"problem: {36 - counts['new']} of 36 recordings are identical to clips of run {record.id} ({counts['test']} "
        "test, " in said
    )
    table = pd.read_csv(folder / "table.csv").set_index("part")
    assert table["clips"].to_dict() == counts.to_dict()
    assert table.index[0] == "new"
    assert table.index[-1] == "training"
    for part, rows in frame.groupby("part"):
        assert table.loc[part, "accuracy"] == pytest.approx(rows["correct"].astype(bool).mean())
    assert table.loc["test", "accuracy"] == pytest.approx(record.metrics.accuracy)
    assert pd.read_csv(folder / "classes.csv")["clips"].sum() == counts["new"]
    both = pd.read_csv(predict(f"{everything} --labels {everything} --all-seeds") / "table.csv")
    assert both["network"].str.startswith("average").sum() == len(counts)


def test_predict_without_digests_says_so(
    predict, results: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(f"{sounds / 'low' / '0.wav'}")
    assert "not compared" not in " ".join(capsys.readouterr().err.split())
    for table in (tmp_path / "results" / "runs" / ".clips").iterdir():
        table.write_bytes(table.read_bytes()[:-9])
    folder = predict(f"{sounds / 'low'}")
    assert "are not compared with the clips of run" in " ".join(capsys.readouterr().err.split())
    assert "part" not in pd.read_csv(folder / "predictions.csv")


def test_predict_holdout_predicts_the_held_out_clips(predict, sounds: Path) -> None:
    folder = predict(f"--holdout --data-root {sounds}")
    holdout = select(load_dataset("folder", sounds), set_aside=0.2).holdout
    frame = pd.read_csv(folder / "predictions.csv")
    assert frame["file"].tolist() == holdout["path"].tolist()
    assert frame["true"].tolist() == [CLASSES[label] for label in holdout["label"]]
    assert (folder / "table.csv").exists()


def test_predict_broken_file_is_left_out_and_counted(
    predict, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError, match=r"^1 of the 7 recordings in .* cannot be used \(deep/broken.m4a: .*--on-bad-clip skip$"
    ):
        predict(f"{new}")
    assert not list(tmp_path.glob("results/predict/*"))
    (tmp_path / "truth.csv").write_text("id,label\n" + "".join(f"{name}0,{name}\n" for name in CLASSES))
    capsys.readouterr()
    folder = predict(f"{new} --on-bad-clip skip --submission stem --labels {tmp_path / 'truth.csv'} --json")
    out, err = capsys.readouterr()
    assert "files without the suffix of a recording are ignored: readme.txt" in err
    assert "1 of 7 recordings could not be used and are left out: deep/broken.m4a: " in err
    assert "identical" not in err
    assert "3 of 6 recordings are not scored" in " ".join(err.split())
    answer = json.loads(out)
    assert (answer["predicted"], answer["left_out"], answer["rows"][0]["clips"]) == (6, 1, 3)
    frame = pd.read_csv(folder / "predictions.csv")
    assert frame["file"].tolist() == sorted(p.relative_to(new).as_posix() for p in new.rglob("*[01].m4a"))
    assert frame["true"].notna().sum() == frame["correct"].notna().sum() == 3
    submission = pd.read_csv(folder / "submission.csv")
    assert submission["id"].tolist() == [Path(path).stem for path in frame["file"]]
    assert list(submission) == ["id", "label"]
    assert submission["label"].tolist() == frame["predicted"].tolist()
    assert pd.read_csv(folder / "left_out.csv")["file"].tolist() == ["deep/broken.m4a"]


def test_predict_equals_sign_in_name_is_escaped_in_the_table_only(
    predict, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(sounds / "low" / "0.wav", tmp_path / "one" / "=1+1.wav")
    folder = predict(f"{tmp_path / 'one'} --submission path")
    assert pd.read_csv(folder / "predictions.csv")["file"].tolist() == ["'=1+1.wav"]
    assert pd.read_parquet(folder / "predictions.parquet")["file"].tolist() == ["=1+1.wav"]
    assert pd.read_csv(folder / "submission.csv")["id"].tolist() == ["=1+1.wav"]
    assert "would run as a formula" in " ".join(capsys.readouterr().out.split())
    predict(f"{sounds} --submission path")
    assert "formula" not in capsys.readouterr().out


def test_predict_feature_rows_need_no_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 4)) * [1, 10, 100, 1000], columns=list("abcd"))
    table["filename"], table["label"] = [f"{k}.wav" for k in range(60)], ["x", "y"] * 30
    table.to_csv(tmp_path / "t.csv", index=False)
    words = f"--backbone mlp --weights random --epochs 2 --device cpu --threads 1 --results {tmp_path / 'r'}".split()
    data = ["--data", "features", "--data-root", str(tmp_path / "t.csv"), "--holdout", "0.2", "--pca", "0.9"]
    assert main(["compare", *data, *words]) == 0
    session = Session(ExecutionOptions(results=tmp_path / "r", device="cpu", threads=1))
    (record,) = session.store.records()
    clips, _, logits = session.store.predictions(record.id)
    table.drop(columns="label")[["d", "filename", "c", "b", "a"]].to_csv(tmp_path / "new.csv", index=False)
    base = ["--run", record.id, "--results", str(tmp_path / "r"), "--device", "cpu", "--threads", "1"]
    assert main(["predict", str(tmp_path / "new.csv"), *base]) == 0
    (folder,) = (tmp_path / "r" / "predict").iterdir()
    frame = pd.read_csv(folder / "predictions.csv").set_index("file")
    np.testing.assert_allclose(frame.loc[clips, ["p_x", "p_y"]], metrics.softmax(logits), atol=1e-6)
    assert frame.loc[clips, "part"].eq("test").all()
    assert frame["part"].value_counts().reindex(["new", "training"]).gt(0).all()
    assert main(["predict", *base, "--holdout", "--data-root", str(tmp_path / "t.csv")]) == 0
    other = next(path for path in (tmp_path / "r" / "predict").iterdir() if path != folder)
    holdout = pd.read_csv(other / "predictions.csv").set_index("file")
    assert len(holdout) == 12
    assert holdout["part"].eq("new").all()
    np.testing.assert_allclose(holdout[["p_x", "p_y"]], frame.loc[holdout.index, ["p_x", "p_y"]], rtol=1e-5)
    table.assign(c="many").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(UserError, match=r"^60 of the 60 .*c is 'many', not a finite number.*: repair or remove them$"):
        main(["predict", str(tmp_path / "bad.csv"), *base])
    with pytest.raises(UserError, match=r"the network needs features; give a CSV file of filename, a, b, c and 1 more"):
        main(["predict", str(tmp_path), *base])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{sounds} --holdout", "^give either PATH .* or --holdout"),
        ("--holdout --labels {sounds}", "^--labels does not apply to --holdout"),
        ("{sounds} --data-root {sounds}", "^--data-root only applies with --holdout"),
        ("~nosuchuser/x", "~nosuchuser/x: "),
        ("{sounds} --labels {sounds}/low", "^--labels .*/low: has no class folders; give a CSV file of"),
        ("{sounds} --submission name", "^--submission name: 0.wav, 1.wav, 2.wav and 7 more would be the id of"),
    ],
)
def test_predict_wrong_options_are_one_line(predict, sounds: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        predict(words.format(sounds=sounds))
    assert "\n" not in str(caught.value)


def test_predict_unusable_runs_are_one_line(predict, results: Path, sounds: Path, tmp_path: Path) -> None:
    one, other = run_ids(results)
    (plain,) = {record.id for record in Store(results).records()} - {one, other}
    for runs, message in (
        ("abcdef123456", r"^unknown finished run 'abcdef123456': "),
        ("../runs", r"^unknown finished run '../runs': "),
    ):
        with pytest.raises(UserError, match=message):
            predict(f"{sounds}", runs)
    with pytest.raises(UserError, match=f"^--holdout: run {plain} was trained without --holdout; give PATH instead$"):
        predict(f"--holdout --data-root {sounds}", plain)
    with pytest.raises(UserError, match=f"^--holdout: runs {one} and {plain} have different clips"):
        predict(f"--holdout --data-root {sounds}", f"{one} {plain}")
    shutil.copytree(sounds, tmp_path / "changed")
    shutil.copy(sounds / "low" / "1.wav", tmp_path / "changed" / "low" / "2.wav")
    with pytest.raises(UserError, match=f"^the clips in .*changed are not those of run {one}$"):
        predict(f"--holdout --data-root {tmp_path / 'changed'}", one)
    weights = tmp_path / "results" / "runs" / one / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\x00\x00\x80\x7f")
    with pytest.raises(
        UserError, match=r"weights.safetensors cannot be read \(its checksum does not match its content\)"
    ):
        predict(f"{sounds}", one)
    weights.unlink()
    with pytest.raises(UserError, match=f"^--run {one} is damaged \\(weights.safetensors is missing\\); delete"):
        predict(f"{sounds}", one)
