"""Tables as CSV, Markdown, LaTeX and terminal output, and number formats."""

import io
import re
import subprocess
from shutil import which

import pandas as pd
import pytest
from rich.console import Console

from analysis.output.number_format import (
    format_magnitude,
    format_p_value,
    format_percent,
    format_points,
    format_ranges,
    format_seconds,
)
from analysis.output.tables import (
    Column,
    FullTable,
    escape_latex,
    escape_markdown,
    make_console_table,
    protocol_note,
    to_latex,
    write_table,
)

NAN = float("nan")
COLUMNS = (
    Column("condition", "Frozen through"),
    Column("accuracy", "Accuracy (%)", format_percent, best="max", std="accuracy_std"),
    Column("seconds", "Time", format_seconds, best="min"),
)
FRAME = pd.DataFrame(
    {
        "condition": ["none", "block_3"],
        "accuracy": [0.612, 1 / 3],
        "accuracy_std": [0.0123, NAN],
        "seconds": [75.0, 4.2],
        "run_ids": [["a", "b"], ["c"]],
    }
)


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (format_percent, 0.61249, "61.2"),
        (format_percent, -0.05, "−5.0"),
        (format_points, 0.0213, "+2.1"),
        (format_points, -0.0213, "−2.1"),
        (format_points, -0.0001, "0.0"),
        (format_magnitude, 3_371_234, "3.37 M"),
        (format_magnitude, 999_950, "1.00 M"),
        (format_magnitude, 650, "650"),
        (format_magnitude, 4.3e9, "4.30 G"),
        (format_seconds, 0.035, "0.04 s"),
        (format_seconds, 4.2, "4.2 s"),
        (format_seconds, 75, "1 min 15 s"),
        (format_seconds, 3599.6, "1 h 00 min"),
        (format_seconds, 4800, "1 h 20 min"),
        (format_ranges, [3, 1, 2, 5], "1–3, 5"),
    ],
)
def test_format_returns_expected_text(function, value, expected):
    assert function(value) == expected


def test_to_latex_of_small_table():
    text = to_latex(
        FRAME, columns=COLUMNS, caption="50 % of clips", label="tab:freeze", footnotes=["Last epoch.", "A & B."]
    )
    assert text == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}\n"
        "  \\centering\n"
        "  \\caption{50 \\% of clips}\n"
        "  \\label{tab:freeze}\n"
        "  \\setlength{\\tabcolsep}{4pt}\n"
        "  \\begin{tabular}{@{}lrr@{}}\n"
        "    \\toprule\n"
        "    \\begin{tabular}[b]{@{}l@{}}Frozen\\\\through\\end{tabular} & "
        "\\begin{tabular}[b]{@{}r@{}}Accuracy\\\\(\\%)\\end{tabular} & Time \\\\\n"
        "    \\midrule\n"
        "    none & \\textbf{61.2 $\\pm$ 1.2} & 1 min 15 s \\\\\n"
        "    block\\_3 & 33.3 & \\textbf{4.2 s} \\\\\n"
        "    \\bottomrule\n"
        "  \\end{tabular}\n"
        "  \\par\\smallskip{\\footnotesize\\raggedright Last epoch.\\par}\n"
        "  \\par\\smallskip{\\footnotesize\\raggedright A \\& B.\\par}\n"
        "\\end{table}\n"
    )


def test_to_latex_of_groups_has_headings_and_leaves_equal_numbers_of_runs_out():
    frame = pd.concat([FRAME.assign(data=name, runs=5) for name in ("esc50", "gtzan")])
    text = to_latex(frame, columns=[Column("data", "Data"), *COLUMNS], caption="x", label="x", groups=["data"])
    assert "\\begin{tabular}{@{}lrr@{}}" in text
    assert text.count("\\multicolumn{3}{@{}l@{}}{\\emph{") == 2
    assert "Runs" not in text
    lost = to_latex(frame.assign(failed=[0, 1, 0, 0]), columns=COLUMNS, caption="x", label="x")
    assert "Runs" in lost and "failed (1 of 5)" in lost


def test_to_latex_of_many_columns_spans_the_page():
    text = to_latex(FRAME, columns=COLUMNS * 3, caption="x", label="x")
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}\n\\begin{table*}")
    assert text.rstrip().endswith("\\end{table*}")


def test_write_table_writes_the_full_table_beside_the_narrow_one(tmp_path):
    full = FullTable(COLUMNS, ["all columns"])
    interval = Column("accuracy", "Accuracy", format_percent, bounds=("low", "high"))
    frame = FRAME.assign(low=[0.55, NAN], high=[0.67, NAN])
    files = write_table(
        frame, tmp_path / "t", columns=[COLUMNS[0], interval], caption="x", label="tab:x", footnotes=["few"], full=full
    )
    assert [file.name for file in files] == ["t.csv", "t.md", "t.tex", "t-full.md", "t-full.tex"]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert "61.2 \\[55.0, 67.0\\]" in texts[1] and "33.3 |" in texts[1] and "Time" not in texts[1]
    assert "Time" in texts[3] and texts[3].endswith("all columns\n")
    assert "\\label{tab:x}" in texts[2] and "\\label{tab:x-full}" in texts[4]


def test_write_table_writes_csv_markdown_and_latex(tmp_path):
    files = write_table(
        FRAME, tmp_path / "new" / "table.v1", columns=COLUMNS, caption="Freezing", label="tab:x", footnotes=["*last*"]
    )
    assert [file.name for file in files] == ["table.v1.csv", "table.v1.md", "table.v1.tex"]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [file.name for file in files]
    read = pd.read_csv(files[0])
    assert read["accuracy"].tolist() == FRAME["accuracy"].tolist()  # full precision
    assert read["run_ids"].tolist() == ["a b", "c"]
    markdown = files[1].read_text(encoding="utf-8")
    assert markdown.startswith("**Freezing**\n\n| Frozen through")
    assert re.search(r"\| block_3 +\| +33.3 \| +\*\*4.2 s\*\* \|", markdown)
    assert markdown.endswith("\n\n\\*last\\*\n")


SPECIAL = "a_b %&#${}~^\\ <x>|*y*\n[z]"


def test_escape_of_special_characters():
    assert escape_latex(SPECIAL) == (
        r"a\_b \%\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}x\textgreater{}\textbar{}{*}y{*} {[}z]"
    )
    assert escape_markdown(SPECIAL) == r"a_b %\&#\${}\~^\\ \<x\>\|\*y\* \[z\]"
    assert escape_markdown("_a_") == r"\_a\_"


def test_write_table_with_special_characters_keeps_cells(tmp_path):
    frame = FRAME.assign(condition=["none", SPECIAL])
    _, markdown, tex = write_table(frame, tmp_path / "t", columns=COLUMNS, caption=SPECIAL, label="t")
    rows = [line for line in markdown.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    body = tex.read_text(encoding="utf-8").split("\\midrule\n")[1].split("    \\bottomrule")[0]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in body.splitlines()] == [2, 2]
    assert all(row.endswith(" \\\\") for row in body.splitlines())
    plain = re.sub(r"\\.", "", tex.read_text(encoding="utf-8"))
    assert plain.count("{") == plain.count("}")


@pytest.mark.skipif(which("pdflatex") is None, reason="no pdflatex")
def test_to_latex_compiles_and_fits_page(tmp_path):
    special = to_latex(
        FRAME.assign(condition=["none", SPECIAL]), columns=COLUMNS, caption=SPECIAL, label="t", footnotes=[SPECIAL]
    )
    wide = to_latex(FRAME, columns=COLUMNS * 3, caption="Wide", label="w")
    narrow = Column("accuracy", "Accuracy %", format_percent, best="max", bounds=("low", "high"))
    change, p = Column("delta", "Change", format_points), Column("p", "p", format_p_value)
    frame = FRAME.assign(
        condition=["none", "fused through block 3 of EfficientNet-Lite0"],
        data="ESC-50 (all ten thousand hours)",
        **{"low": 0.551, "high": 0.688, "delta": [NAN, -0.279], "p": [NAN, 0.0001], "runs": 15},
    )
    columns = [Column("data", "Data"), COLUMNS[0], narrow, change, p]
    narrow_table = to_latex(frame, columns=columns, caption="Narrow", label="n", groups=["data"])
    assert "resizebox" not in narrow_table
    packages = "\\usepackage{booktabs,graphicx}"
    tables = f"{special}{wide}{narrow_table}"
    document = f"\\documentclass[twocolumn]{{article}}{packages}\\begin{{document}}{tables}\\end{{document}}"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    assert b"Overfull" not in printed


def test_runs_column_counts_failed_and_missing_runs():
    frame = pd.DataFrame(
        {
            "condition": ["none", "stem", "block1", "block2"],
            "accuracy": [0.6, 0.7, NAN, 0.5],
            "runs": [5, 5, 5, 5],
            "failed": [0, 2, 5, 1],
            "missing": [0, 0, 0, 2],
        }
    )
    columns = (Column("condition", "Condition"), Column("accuracy", "Accuracy (%)", format_percent, best="max"))
    rows = re.findall(r"^    (\w+) & (.+) & (.+) \\\\$", to_latex(frame, columns=columns, caption="", label="t"), re.M)
    assert rows[1:] == [
        ("none", "60.0", "5"),
        ("stem", r"\textbf{70.0}", "failed (2 of 5)"),
        ("block1", "--", "failed (5 of 5)"),
        ("block2", "50.0", "failed (1 of 5), missing (2 of 5)"),
    ]


def bold(frame, columns, **options):
    return re.findall(r"textbf\{(.*?)\}", to_latex(frame, columns=columns, caption="", label="t", **options))


def test_best_value_is_bold_unless_all_texts_are_equal():
    accuracy = Column("accuracy", "Accuracy", format_percent, best="max")
    assert bold(pd.DataFrame({"accuracy": [0.61201, 0.61199, 0.5]}), [accuracy]) == ["61.2", "61.2"]
    assert bold(pd.DataFrame({"accuracy": [0.61201, 0.61199]}), [accuracy]) == []
    assert bold(pd.DataFrame({"accuracy": [0.6, NAN]}), [accuracy]) == []
    assert bold(pd.DataFrame({"nll": [0.6, 0.4]}), [Column("nll", "NLL", format_percent, best="min")]) == ["40.0"]


def test_best_value_is_bold_in_each_group():
    frame = pd.DataFrame({"data": ["a", "a", "b", "b"], "accuracy": [0.9, 0.8, 0.2, 0.3]})
    columns = (Column("data", "Data"), Column("accuracy", "Accuracy", format_percent, best="max"))
    assert bold(frame, columns, groups=["data"]) == ["90.0", "30.0"]
    assert to_latex(frame, columns=columns, caption="", label="t", groups=["data"]).count("\\midrule") == 2


def test_marked_value_gets_prefix_about():
    frame = pd.DataFrame({"accuracy": [0.8, 0.7], "published": [0.9, NAN], "published_approximate": [True, False]})
    columns = (
        Column("accuracy", "Accuracy", format_percent, best="max"),
        Column("published", "Published", format_percent, mark="published_approximate"),
    )
    text = to_latex(frame, columns=columns, caption="", label="t")
    assert "    \\textbf{80.0} & about 90.0 \\\\\n    70.0 & -- \\\\\n" in text


def test_console_table_does_not_read_markup():
    console = Console(file=io.StringIO(), width=100)
    console.print(make_console_table(FRAME.assign(condition=["none", "[red]x"]), COLUMNS, title="[b]t"))
    text = console.file.getvalue()
    assert "[red]x" in text
    assert "[b]t" in text
    assert "1 min 15 s" in text


def test_protocol_note_has_epoch_folds_and_seeds():
    note = protocol_note(epoch="last epoch", folds=[1, 2, 3], seeds=[0, 7])
    assert "last epoch; mean ± standard deviation, or mean [95 % interval], over test folds 1–3 and seeds 0, 7" in note
    assert "; seeds are averaged" in note
    assert "over test fold 2 and seeds 0, 7." in protocol_note(epoch="last epoch", folds=[2], seeds=[0, 7])
    assert "single run per condition (test fold 2 and seed 0)" in protocol_note(epoch="last", folds=[2], seeds=[0])
