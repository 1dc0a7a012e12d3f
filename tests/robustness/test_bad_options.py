"""Every option with bad values gives a plan or one line."""

import dataclasses
import os

import pytest

from ablations.planning.call import command_options
from ablations.planning.experiment import prepare
from ablations.planning.grid import read_execution_options
from commands import COMMANDS
from commands.cli.parser import read_command_line
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.session import Session
from core.training.trainer import train
from run_ablation import main

pytestmark = pytest.mark.usefixtures("empty_folder")
BAD_WORDS = ("²", "nan", "1" + 30 * "0", 5000 * "9", "x\x1b[31m", "~nosuchuser/x", "\udcff")
COMMAND = "freeze"
SKIPPED_FLAGS = {"--ray", "--storage", "--results"}  # start Ray or create folders; tested elsewhere


def plan_command(line: list[str], session: Session) -> str:
    """Plan a command line; return the message if it is refused, otherwise ""."""
    try:
        call = read_command_line(COMMANDS, line)
        read_execution_options(call)
        prepare(call, session)
    except UserError as error:
        return str(error)
    return ""


def test_plan_bad_word_of_any_option_is_planned_or_one_line(
    dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "core.plan.datasets.load_dataset", lambda name, root=None, **_: dataclasses.replace(dataset, name=name)
    )
    monkeypatch.setattr(Dataset, "compute_fingerprint", lambda self, cache, progress=None: "0" * 64)
    flags = [f"--{one.flag}" for one in command_options(COMMANDS[COMMAND]) if one.type is not bool]
    flags = [flag for flag in flags if flag not in SKIPPED_FLAGS]
    n_refused = 0
    for k, flag in enumerate(flags):
        message = plan_command([COMMAND, flag, BAD_WORDS[k % len(BAD_WORDS)]], session)
        n_refused += bool(message)
        assert "\n" not in message, flag
        assert message.isprintable(), (flag, message)
    assert n_refused >= len(flags) // 2


def test_predict_bad_word_of_any_option_is_accepted_or_one_line(run: Run, dataset: Dataset, session: Session) -> None:
    train(run, dataset, session, label="run")
    flags = [f"--{one.flag}" for one in command_options(COMMANDS["predict"]) if not one.positional]
    settings = {"--run": run.id, "--results": str(session.store.results), "--device": "cpu", "--threads": "1"}
    n_refused = 0
    for k, flag in enumerate(flag for flag in flags if flag not in SKIPPED_FLAGS):
        words = [part for pair in (settings | {flag: BAD_WORDS[k % len(BAD_WORDS)]}).items() for part in pair]
        try:
            assert main(["predict", str(dataset.root / "low" / "0.wav"), *words]) == 0
        except UserError as error:
            n_refused += 1
            assert str(error).isprintable(), flag
    assert n_refused >= 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--milestones 3 -1 --schedule step", "--milestones -1: epochs start at 1"),
        ("--results ~nosuchuser/x", "--results ~nosuchuser/x: Could not determine home directory."),
        ("--fmax 4001 --sr 8000", "--fmax 4001: must be at most half the sampling rate, 4000 Hz"),
        ("--duration inf", "--duration inf: give a finite number"),
        ("--seed 18446744073709551616", "--seed: must be at most 9223372036854775807"),
        ("--fold ²", "--fold ²: instruments has the folds 1, 2, 3, 4, 5; give one of them or all"),
    ],
)
def test_plan_meaningless_setting_is_refused(words: str, message: str, session: Session) -> None:
    assert message in plan_command([COMMAND, *words.split()], session)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attribute --method foo", "unknown method 'foo'"),
        ("attribute --method gradcam:block9", "block 9: efficientnet_lite0 has stem and blocks 1 to 4"),
        ("attribute --baseline nosuch.npy", "--baseline nosuch.npy: cannot be read as an array"),
        ("attribute --clip nosuch.wav", "unknown clip 'nosuch.wav': "),
        ("ensemble --seed 9223372036854775807", "--seed 9223372036854775807: the seeds of all 5 members"),
        ("compare --by content", "unknown option 'content'"),
    ],
)
def test_plan_bad_option_of_an_analysis_is_refused(words: str, message: str, session: Session) -> None:
    assert message in plan_command(words.split(), session)


@pytest.mark.parametrize("flag", ["--results", "--data-root"])
def test_plan_path_not_in_utf8_is_refused(flag: str, session: Session) -> None:
    message = plan_command([COMMAND, flag, os.fsdecode(b"/place\xff\xfe")], session)
    assert message == rf"{flag} /place\xff\xfe: not UTF-8; rename the folder, or give a link to it"
