"""One module per ablation. An ablation defines the conditions of a base run and the analysis of the finished runs."""

from pathlib import Path

from core.registry import Registry

ABLATIONS = Registry(
    "ablation",
    {  # command: class; the docstring of the class is the help of the command
        "attribute": "ablations.attribute:Attribute",
        "pretraining": "ablations.pretraining:Pretraining",
        "weight-change": "ablations.weight_change:WeightChange",
        "fusion": "ablations.fusion:Fusion",
        "freeze": "ablations.freeze:Freeze",
        "cutoff": "ablations.cutoff:Cutoff",
        "compare": "ablations.compare:Compare",
        "ensemble": "ablations.ensemble:Ensemble",
    },
)
STUDIES_FOLDER = Path(__file__).parent / "studies"  # one folder for each study: study.toml, published.csv, README.md
