"""The command `compare`: values of an option as conditions."""

import html
from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL, fill_options

from core.errors import UserError
from run_ablation import main


@pytest.fixture
def compare(sounds: Path, tmp_path: Path):
    """Return a function that runs the command on the small sounds and returns its table."""

    def run(words: str) -> pd.DataFrame:
        data = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
        assert main(["compare", *data, *fill_options(words.split())]) == 0
        (file,) = tmp_path.glob("compare/*/table.csv")
        return pd.read_csv(file)

    return run


def test_compare_makes_conditions_of_the_option_with_several_values(compare, tmp_path: Path) -> None:
    table = compare("--length-mode loop pad --freeze last --seed 0 1")
    (page,) = tmp_path.glob("compare/*/table.md")
    assert "| Length mode " in page.read_text()  # heading of the conditions
    assert table["condition"].tolist() == ["loop", "pad"]
    assert table["runs"].tolist() == [2, 2]
    assert table["delta"].iloc[0] == 0
    assert table["trainable_parameters"].nunique() == 1
    assert table["trainable_parameters"].iloc[0] == 1281 * 3  # the classifier alone
    assert table["delta"].iloc[1] == pytest.approx(table["accuracy"].iloc[1] - table["accuracy"].iloc[0])


def test_freeze_last_shares_the_run_with_compare_freeze_last(compare, sounds: Path, tmp_path: Path) -> None:
    assert compare("--freeze last")["condition"].tolist() == ["base"]
    runs = {file.parent.name for file in tmp_path.glob("runs/*/run.json")}
    again = ["--data", "folder", "--data-root", str(sounds), "--results", str(tmp_path)]
    assert main(["freeze", "--block", "last", *SMALL, *again]) == 0
    (file,) = tmp_path.glob("freeze/*/table.csv")
    table = pd.read_csv(file)
    assert table["condition"].tolist() == ["none", "block4"]
    assert set(table["run_ids"].iloc[1].split()) == runs


def test_compare_with_other_label_has_no_published_numbers(nsynth: Path, tmp_path: Path) -> None:
    words = ["compare", "--data", "nsynth-valid", "--data-root", str(nsynth), "--backbone", "resnet18", "--head", "128"]
    words += ["--freeze", "last", "--weights", "random", "--image-size", "32", "32", "--epochs", "1", "--device", "cpu"]
    for label in ("", "pitch"):
        results = tmp_path / (label or "family")
        assert main([*words, "--results", str(results), *(["--label", label] if label else [])]) == 0
        (file,) = results.glob("compare/*/table.csv")
        assert pd.read_csv(file)["data"].tolist() == [f"nsynth-valid by {label}" if label else "nsynth-valid"]
        assert not list(results.glob("compare/*/published-*.csv"))  # neither the data set nor the weights are published


def test_report_shows_published_numbers_of_random_weights(sounds: Path, tmp_path: Path) -> None:
    words = [
        "--data",
        "folder",
        "--data-root",
        str(sounds),
        "--published-dataset",
        "thirteen-classes",
        "--length-mode",
        "pad",
        "loop",
    ]
    words += ["--backbone", "googlenet_2014", "--weights", "random", "--freeze", "last", "--results", str(tmp_path)]
    assert main(["compare", *SMALL, *words]) == 0
    (file,) = tmp_path.glob("compare/*/published-thirteen-classes-padding-section-4.csv")
    beside = pd.read_csv(file.with_stem(f"{file.stem}-numbers")).set_index(["condition", "metric"])
    assert beside.loc[("loop", "accuracy"), "published"] == 0.8267
    assert main(["report", "--results", str(tmp_path)]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    sentence = (file.parent / "summary.md").read_text().split("- ")[-1].strip()
    assert sentence.startswith("--length-mode loop instead of pad changes accuracy by ")
    assert html.escape(sentence, quote=False) in html.unescape(page)
    rows = [part for part in page.split("<tr") if "thirteen-classes-padding Section 4" in part and "0.8267" in part]
    assert any(f"{beside.loc[('loop', 'accuracy'), 'ours']:.4f}" in row for row in rows)


def test_compare_by_option_makes_rows_of_the_others(compare) -> None:
    table = compare("--length-mode loop pad --lr 1e-3 1e-4 --by length-mode --freeze 4")
    assert table["condition"].tolist() == ["loop", "pad", "loop", "pad"]
    assert table["lr"].tolist() == [1e-3, 1e-3, 1e-4, 1e-4]
    assert table["delta"].tolist()[::2] == [0, 0]


def test_compare_with_leak_adds_a_condition(compare) -> None:
    table = compare("--augment none rotate --with-leak")
    assert table["condition"].tolist() == ["none", "rotate", "rotate-all"]
    assert table["run_ids"].nunique() == 3
    assert table["delta"].iloc[0] == 0


def test_compare_on_the_fly_trains_with_every_augmentation(compare) -> None:
    table = compare("--on-the-fly --augment none stretch-pitch random-crop rotate --n-augmented 1 --duration 0.3")
    assert table["condition"].tolist() == ["none", "stretch-pitch", "random-crop", "rotate"]
    assert table["accuracy"].notna().all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--augment none random-crop", "^--augment random-crop needs --on-the-fly"),
        (
            "--augment none random-crop --on-the-fly --length-mode stretch",
            "^--augment random-crop .* --length-mode",
        ),
        (
            "--length-mode loop pad --lr 1e-3 1e-4",
            r"\(length-mode, lr\).* --by length-mode",
        ),
        ("--length-mode loop pad --by length-mod", "unknown option 'length-mod': did you mean 'length-mode'"),
        ("--by length-mode", "--by length-mode: .* give --length-mode several values"),
        ("--with-leak", "give --augment rotate too"),
    ],
)
def test_compare_with_invalid_options_raises_user_error(compare, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(words)
