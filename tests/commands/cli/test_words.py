from commands.cli import parser
from commands.cli.words import flags, join_words, split_words
from commands.study.options import Study


def test_words_are_split_by_flag_and_joined_again() -> None:
    known = flags(parser.option_class(Study))
    words = ["--seed", "0", "1", "--data", "esc50", "--compile"]
    assert split_words(words, known) == {"seed": ["0", "1"], "data": ["esc50"], "compile": []}
    assert join_words(split_words(words, known)) == words
    assert split_words(["rethinking-cnn", "--lr=1e-4"], known) == {"lr": ["1e-4"]}
    last = ["--scale", "quick", "--dry-run", "--results", "R", "rethinking-cnn"]
    assert split_words(last, known) == {"scale": ["quick"], "dry-run": [], "results": ["R"]}
