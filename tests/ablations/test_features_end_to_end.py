"""Features of recordings and of a table in the commands, and their invalid options."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.errors import UserError
from run_ablation import main

NETWORK = "--backbone mlp --weights random --dropout 0 --normalise train --epochs 8 --batch-size 8 --lr 1e-2"
SOUNDS = f"--input features --sr 8000 --duration 0.5 --n-fft 512 {NETWORK} --device cpu --threads 1"


@pytest.fixture
def run(sounds: Path, tmp_path: Path):
    """Return a function that runs a command on small recordings and returns its output folder."""

    def command(words: str) -> Path:
        data = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
        name, *rest = words.split()
        pairs = zip(SOUNDS.split()[::2], SOUNDS.split()[1::2], strict=True)
        usual = [word for flag, value in pairs if flag not in rest for word in (flag, value)]
        assert main([name, *data, *usual, *rest]) == 0
        [folder] = (tmp_path / name).iterdir()
        return folder

    return command


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Write a table of two classes with one informative feature of three."""
    rng, label = np.random.default_rng(0), np.arange(60) % 2
    rows = pd.DataFrame(rng.standard_normal((60, 3)), columns=["tempo", "rms_mean", "rolloff_mean"])
    rows["rms_mean"] += 4 * label
    names, classes = [f"{k:02d}.wav" for k in range(60)], np.array(["quiet", "loud"])[label]
    rows.assign(filename=names, label=classes).to_csv(tmp_path / "features.csv", index=False)
    return tmp_path / "features.csv"


def test_features_of_recordings_are_trained_and_frozen(run, tmp_path: Path) -> None:
    table = pd.read_csv(run("freeze --mlp-layers relu16-relu16 --block stem 1") / "table.csv")
    assert table["condition"].tolist() == ["none", "stem", "block1"]
    assert table["accuracy"].iloc[0] >= 0.8  # three tones; chance is a third
    assert table["trainable_parameters"].tolist() == [57 * 16 + 16 + 17 * 16 + 17 * 3, 17 * 16 + 17 * 3, 17 * 3]
    assert len(list((tmp_path / "cache" / "images").glob("*/"))) == 1


def test_features_of_recordings_work_with_pca_and_similarity(run, tmp_path: Path) -> None:
    run("compare --mlp-layers relu16-relu16 --pca 8")
    [weights] = tmp_path.glob("runs/*/weights.safetensors")
    folder = run(f"weight-change --mlp-layers relu16-relu16 --pca 8 --similarity cka --weights {weights}")
    table = pd.read_csv(folder / "table.csv")
    assert table["similarity"].between(0, 1).all()
    assert (table["similarity"] < 1).any()


def test_attribute_names_each_feature(run) -> None:
    folder = run("attribute --mlp-layers relu16 --n-clips 4 --no-faithfulness")
    profiles = pd.read_csv(folder / "profiles.csv")
    assert profiles["name"].nunique() == 57
    assert {"rolloff_mean", "tempo", "mfcc20_var"} <= set(profiles["name"])
    assert np.allclose(profiles.groupby("class")["share"].sum(), 1)
    maps = pd.read_csv(folder / "maps.csv")
    assert maps["baseline"].tolist() == ["silence"]
    assert maps["error"].max() <= 0.05
    [clip, *_] = (folder / "maps").glob("*.npz")
    silence = np.load(clip)["baselines"].ravel()
    names = profiles["name"].unique().tolist()
    assert silence[names.index("mfcc1_mean")] == pytest.approx(-100 * np.sqrt(128))  # -100 dB in 128 bands
    assert (
        np.delete(silence, names.index("mfcc1_mean")) == 0
    ).sum() >= 56 - 19  # the other coefficients are rounding errors


def test_attribute_of_table_finds_the_informative_feature(csv: Path, tmp_path: Path) -> None:
    network = NETWORK.replace("1e-2", "1e-1")
    words = f"attribute --data features --data-root {csv} {network} --mlp-layers none --n-clips 12"
    words += " --no-faithfulness --across-ablations"
    assert main([*words.split(), "--device", "cpu", "--threads", "1", "--results", str(tmp_path)]) == 0
    [folder] = (tmp_path / "attribute").iterdir()
    profiles = pd.read_csv(folder / "profiles.csv")
    assert (profiles.groupby("name")["share"].mean().idxmax()) == "rms_mean"
    assert pd.read_csv(folder / "maps.csv")["baseline"].unique().tolist() == ["mean"]
    items = {item["name"] for item in json.loads((folder / "analysis.json").read_text())["items"]}
    assert {"figure", "profiles", "comparison"} <= items


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attribute --baseline silence", "--baseline silence: .* --input features; choose from mean"),
        ("attribute --method gradcam", "--method gradcam needs images; --input features"),
        ("compare --input mfcc", "--input mfcc: features"),
        ("compare --augment stretch-pitch", "--augment"),
        ("compare --pca 4", "--pca 4: .* at most 3"),
        ("compare --mlp-layers relu64-sigmoid48", "--mlp-layers relu64-sigmoid48: .* relu or tanh"),
    ],
)
def test_feature_table_with_invalid_option_raises_user_error(
    csv: Path, tmp_path: Path, words: str, message: str
) -> None:
    data = f"--data features --data-root {csv} --backbone mlp --weights random --epochs 1 --results {tmp_path}"
    with pytest.raises(UserError, match=message) as caught:
        main([*words.split(), *data.split(), "--device", "cpu", "--threads", "1"])
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "runs").glob("*/weights.safetensors")]  # no run was trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("samples", "--input features"),
        ("compare --n-fft 8192", "4000 samples.*8192"),
        ("compare --n-mfcc 30 --n-mels 20", "--n-mfcc 30: .* --n-mels 20"),
    ],
)
def test_features_of_recordings_with_invalid_option_raise_user_error(run, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(words)
    assert "\n" not in str(caught.value)
