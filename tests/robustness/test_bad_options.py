"""Every option with bad values: the answer is a plan or one line."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import COMMANDS
from commands.ablation import prepare
from commands.cli.grid import read_execution_options
from commands.cli.parser import command_options, read_command_line
from core import datasets
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.session import Session
from core.training.trainer import train
from run_ablation import main

# What has ended programs before: no number, no end, another script's digits, too many of them, bytes, paths.
BAD_WORDS = (
    "²",
    "nan",
    "inf",
    "-1",
    "1e400",
    "1" + 30 * "0",
    5000 * "9",
    "x\x1b[31m",
    "~nosuchuser/x",
    5000 * "p",
    "\udcff",
)
COMMAND = "freeze"
LEFT = {"--ray", "--storage", "--results"}  # would start Ray or make folders; their words are checked elsewhere


def lines() -> Iterator[list[str]]:
    """Give every option of the command three of the words, others for the next."""
    every = [f"--{one.flag}" for one in command_options(COMMANDS[COMMAND]) if one.type is not bool]
    every = [flag for flag in every if flag not in LEFT]
    for k, flag in enumerate(every):
        yield from ([COMMAND, flag, BAD_WORDS[(3 * k + i) % len(BAD_WORDS)]] for i in range(3))


def answer(line: list[str], session: Session) -> str:
    """Plan a command line; return its one line where it is refused."""
    try:
        call = read_command_line(COMMANDS, line)
        read_execution_options(call)
        prepare(call, session)
    except UserError as error:
        return str(error)
    return ""


def test_plan_bad_words_of_every_option_are_accepted_or_one_line(
    dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]
) -> None:
    monkeypatch.setattr(
        "core.plan.datasets.load_dataset", lambda name, root=None: dataclasses.replace(dataset, name=name)
    )
    monkeypatch.setattr(Dataset, "compute_fingerprint", lambda self, cache, progress=None: "0" * 64)
    refused = 0
    tried = list(lines())
    for line in tried:
        said = answer(line, session)
        refused += bool(said)
        assert "\n" not in said, line
        assert said.isprintable(), (line, said)
        assert not said or said.strip(), line
    say(f"{len(tried)} command lines, {refused} of them refused in one line")
    assert len(tried) >= 150
    assert refused >= len(tried) // 2


def test_predict_bad_words_of_every_option_are_accepted_or_one_line(
    run: Run, dataset: Dataset, session: Session
) -> None:
    """Every option of `predict` with every word: ids of runs, paths, labels and settings."""
    train(run, dataset, session, label="run")
    options = [one for one in command_options(COMMANDS["predict"]) if one.type is not bool and not one.positional]
    base = {"--run": run.id, "--results": str(session.store.results)}
    base |= {"--device": "cpu", "--threads": "1"}
    refused = 0
    for flag in (f"--{one.flag}" for one in options if one.flag != "results"):
        for word in BAD_WORDS:
            line = [
                "predict",
                str(dataset.root / "low" / "0.wav"),
                *(part for pair in (base | {flag: word}).items() for part in pair),
            ]
            try:
                assert main(line) == 0
            except UserError as error:
                refused += 1
                assert str(error).isprintable(), (line, str(error))
                assert str(error).strip(), line
    assert refused >= 7 * len(BAD_WORDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--milestones 3 -1 --schedule step", "--milestones -1: epochs start at 1"),
        ("--n-fft 1 --n-mels 8", "--fmin 0 --fmax 8000: 1 samples have no frequency between them"),
        ("--results ~nosuchuser/x", "--results ~nosuchuser/x: Could not determine home directory."),
        ("--fmin 1e6 --sr 8000", "--fmin 1e+06: must be below half the sampling rate, 4000 Hz"),
        ("--fmax 4001 --sr 8000", "--fmax 4001: must be at most half the sampling rate, 4000 Hz"),
        ("--sr 1", "--sr 1: must be 0 or at least 100"),
        ("--duration inf", "--duration inf: give a finite number"),
        ("--seed 18446744073709551616", "--seed: must be at most 9223372036854775807"),
        ("--batch-size 9223372036854775808", "--batch-size 9223372036854775808: must be at most 1e+06"),
        ("--epochs 1000000000000000000000000000000", "must be at most 1e+06"),
        ("--threads 100000000", "--threads 100000000: must be at most"),
        ("--fold ²", "--fold ²: instruments has the folds 1, 2, 3, 4, 5; give one of them or all"),
    ],
)
def test_plan_meaningless_setting_is_refused(words: str, message: str, session: Session) -> None:
    assert message in answer([COMMAND, *words.split()], session)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attribute --method foo", "unknown method 'foo'"),
        ("attribute --method gradcam:block9", "block 9: efficientnet_lite0 has stem and blocks 1 to 4"),
        ("attribute --baseline foo", "unknown baseline 'foo': choose from silence, mean"),
        ("attribute --baseline nosuch.npy", "--baseline nosuch.npy: cannot be read as an array"),
        ("attribute --target nosuchclass", "unknown class 'nosuchclass'"),
        ("attribute --clip nosuch.wav", "unknown clip 'nosuch.wav': "),
        ("ensemble --members 1000000000000000000", "--members 1000000000000000000: must be at most 1000"),
        ("ensemble --seed 9223372036854775807", "--seed 9223372036854775807: the members"),
        ("compare --by content", "unknown option 'content'"),
    ],
)
def test_plan_bad_options_of_the_analysis_are_refused(words: str, message: str, session: Session) -> None:
    assert message in answer(words.split(), session)


@pytest.mark.parametrize("flag", ["--results", "--data-root"])
def test_plan_path_that_is_no_utf8_is_refused(flag: str, session: Session) -> None:
    """What is recorded and drawn is text: a run was trained there, and then failed for good."""
    said = answer([COMMAND, flag, os.fsdecode(b"/place\xff\xfe")], session)
    assert said == rf"{flag} /place\xff\xfe: not a name in UTF-8; rename the folder, or give a link to it"


def test_load_home_of_an_unknown_user_is_one_line() -> None:
    with pytest.raises(UserError, match="--data-root ~nosuchuser/x: "):
        datasets.load_dataset("folder", Path("~nosuchuser/x"))
    with pytest.raises(UserError, match="File name too long"):
        datasets.load_dataset("folder", Path(5000 * "p"))
