from core.config.run import Run
from core.plan import Plan, PlannedRun


def test_groups_are_over_folds_and_seeds() -> None:
    planned = []
    for lr in (1e-3, 1e-4):
        for fold in (1, 2):
            base = Run().replace(training__lr=lr, data__fold=fold, data__content=f"of fold {fold}", seed=fold)
            planned += [PlannedRun("none", base, base), PlannedRun("stem", base.replace(model__freeze="stem"), base)]
    plan = Plan("freeze", tuple(planned), {})
    assert plan.grid == ["lr"]
    groups = plan.groups()
    assert [point for point, _ in groups] == [
        {"lr": lr, "condition": condition} for lr in (1e-3, 1e-4) for condition in ("none", "stem")
    ]
    assert [[row.run.data.fold for row in part] for _, part in groups] == [[1, 2]] * 4
    assert sum((part for _, part in groups), []) == sorted(planned, key=lambda p: (-p.run.training.lr, p.condition))
    by_seed = plan.groups(lambda row: {"first_seed": row.reference.seed})
    assert [point for point, _ in by_seed] == [{"lr": lr, "first_seed": seed} for lr in (1e-3, 1e-4) for seed in (1, 2)]
    assert [len(part) for _, part in by_seed] == [2] * 4


def test_grid_leaves_out_fields_of_the_data_set() -> None:
    other = Run().replace(data__name="esc50", clip__sr=44100)
    plan = Plan("freeze", tuple(PlannedRun("none", run, run) for run in (Run(), other)), {})
    assert [point for point, _ in plan.groups()] == [
        {"data": "instruments", "condition": "none"},
        {"data": "esc50", "condition": "none"},
    ]


def test_grid_leaves_out_computed_components() -> None:
    runs = [Run().replace(data__fold=fold, frontend__pca=0.95, frontend__components=20 + fold) for fold in (1, 2)]
    plan = Plan("compare", tuple(PlannedRun("base", run, run) for run in runs), {})
    assert [(point, len(part)) for point, part in plan.groups()] == [({"condition": "base"}, 2)]
