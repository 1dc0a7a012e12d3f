"""One file per ablation. Each turns a base run into conditions; none of them trains."""

ABLATIONS: dict[str, str] = {
    # command: the class that describes it; its docstring is the command's help
    "freeze": "ablations.freeze:Freeze",
}
