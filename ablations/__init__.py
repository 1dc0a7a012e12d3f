"""One file per ablation. Each turns a base run into conditions; none of them trains."""

from core.registry import Registry

ABLATIONS = Registry(
    "ablation",
    {  # command: the class that describes it; its docstring is the command's help
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
