"""Feature tables: reading, invalid tables, and training on their rows."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ablations.planning.experiment import fill_in_run
from core import datasets
from core.config.run import Run
from core.datasets import select
from core.datasets.copies import describe_copies
from core.datasets.dataset import Dataset
from core.datasets.recording_groups import describe_columns, describe_groups
from core.errors import UserError
from core.inputs.input_kind import get_input_shape
from core.models.input_transform.pca import PcaProjection
from core.plan import resolve
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import train

WIDTH = 6


def table(path: Path, *, rows: int = 90) -> Path:
    """Write a table of three classes whose features have very different units; the last two nearly repeat others."""
    rng = np.random.default_rng(0)
    label = np.arange(rows) % 3
    x = rng.standard_normal((rows, WIDTH)) + 2 * (label[:, None] == np.arange(WIDTH) % 3)
    x[:, 4:] = x[:, :2] + 0.01 * rng.standard_normal((rows, 2))
    found = pd.DataFrame(x * 10.0 ** np.arange(-2, WIDTH - 2), columns=[f"feature{k}" for k in range(WIDTH)])
    found.insert(0, "filename", [f"clip{k:03d}.wav" for k in rng.permutation(rows)])
    found.insert(1, "length", 661_794)
    found["label"] = np.array(["blues", "jazz", "rock"])[label]
    found.to_csv(path, index=False)
    return path


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return table(tmp_path / "features.csv")


@pytest.fixture
def features(csv: Path) -> Dataset:
    return datasets.load_dataset("features", csv)


def change(csv: Path, column: str, value: object, *, row: int | None = None) -> None:
    rows = pd.read_csv(csv, dtype=str)
    rows.loc[slice(None) if row is None else row, column] = value
    rows.to_csv(csv, index=False)


def run_on(dataset: Dataset, session: Session, **changes: object) -> Run:
    """Return a resolved run of logistic regression on the data set."""
    asked = {"model__backbone": "mlp", "model__layers": "none", "model__weights": "random", "data__name": "features"}
    small = Run().replace(**(asked | {"model__dropout": 0.0, "training__epochs": 2} | changes))
    return fill_in_run(
        resolve(small, dataset, dataset.compute_fingerprint(session.store.cache)), dataset, session=session
    )


class TestReading:
    def test_load_feature_table_reads_rows(self, csv: Path, features: Dataset) -> None:
        rows = pd.read_csv(csv).set_index("filename")
        assert features.columns == tuple(f"feature{k}" for k in range(WIDTH))
        assert features.vectors is not None
        ours = rows.loc[features.clips["path"]]
        np.testing.assert_array_equal(features.vectors, ours[list(features.columns)].to_numpy(np.float32))
        assert [features.class_names[label] for label in features.clips["label"]] == ours["label"].tolist()
        assert features.clips["path"].is_monotonic_increasing

    def test_feature_table_fingerprint_depends_on_values_and_names(self, csv: Path, tmp_path: Path) -> None:
        found = [datasets.load_dataset("features", csv).compute_fingerprint(tmp_path)]
        change(csv, "feature0", "0.5", row=7)
        found.append(datasets.load_dataset("features", csv).compute_fingerprint(tmp_path))
        csv.write_text(csv.read_text().replace("feature0", "tempo"))
        found.append(datasets.load_dataset("features", csv).compute_fingerprint(tmp_path))
        assert len(set(found)) == 3
        assert datasets.load_dataset("features", csv).compute_fingerprint(tmp_path) == found[2]

    def test_load_feature_table_keeps_folds_and_groups(self, csv: Path) -> None:
        rows = pd.read_csv(csv)
        rows["fold"], rows["group"] = np.arange(90) // 3 % 2 + 1, [f"song{k // 3}" for k in range(90)]
        rows.to_csv(csv, index=False)
        dataset = datasets.load_dataset("features", csv)
        assert dataset.columns == tuple(f"feature{k}" for k in range(WIDTH))
        assert dataset.list_folds() == (1, 2)
        assert dataset.clips["group"].nunique() == 30

    def test_load_feature_table_repeated_rows_are_a_problem(self, csv: Path, tmp_path: Path) -> None:
        rows = pd.read_csv(csv)
        rows["fold"] = np.arange(90) // 3 % 2 + 1  # rows 3 and 10 are in fold 2, row 6 in fold 1
        rows.iloc[6, 2:-2] = rows.iloc[3, 2:-2]
        rows.iloc[10, 2:-2] = rows.iloc[3, 2:-2]  # a row of another class
        rows.to_csv(csv, index=False)
        before, after = datasets.load_dataset("features", csv), datasets.load_dataset("features", table(csv))
        assert before.clips["group"].is_unique  # published results on such tables include repeated rows
        first, second = sorted(rows["filename"][[3, 6, 10]])[:2]
        found = describe_copies(before.with_digests(tmp_path))
        assert [line.partition(":")[0] for line in found] == [
            "identical rows in more than one fold, so clips are trained on and tested",
            "identical rows with different labels",
        ]
        assert f": 1 in 3 clips: {first} = {second}; " in found[0]
        assert describe_copies(after.with_digests(tmp_path)) == []

    def test_load_feature_table_of_segments_groups_rows_by_track(self, csv: Path) -> None:
        rng = np.random.default_rng(0)
        tracks = rng.standard_normal((60, 1, 8))  # independent of the labels
        vectors = (tracks + 0.01 * rng.standard_normal((60, 10, 8))).reshape(600, 8)
        rows = pd.DataFrame(vectors, columns=[f"feature{k}" for k in range(8)])
        genres = [("blues", "jazz", "rock")[track % 3] for track in range(60) for _ in range(10)]
        rows["filename"] = [f"{genre}.{k // 10:05d}.{k % 10}.wav" for k, genre in enumerate(genres)]
        rows["label"] = genres
        rows.to_csv(csv, index=False)

        def measure_accuracy(dataset: Dataset) -> float:
            labels, correct = dataset.clips["label"].to_numpy(), 0
            for fold in dataset.list_folds():
                train, _, test = dataset.split(fold)
                nearest = KNeighborsClassifier(1).fit(dataset.vectors[train], labels[train])
                correct += (nearest.predict(dataset.vectors[test]) == labels[test]).sum()
            return correct / len(labels)

        dataset = datasets.load_dataset("features", csv)
        assert dataset.clips["group"].nunique() == 60
        assert (dataset.clips.groupby("group")["fold"].nunique() == 1).all()
        assert measure_accuracy(dataset) < 0.5  # chance: 0.33
        assert describe_groups(dataset) == [
            "rows are grouped by the track in the file name: 600 rows of 60 tracks (--group filename: no groups)"
        ]
        apart = select(dataset, group="filename")
        assert apart.clips["group"].is_unique
        assert measure_accuracy(apart) == 1

    def test_load_feature_table_ignores_text_and_groups_by_any_column(self, csv: Path) -> None:
        rows = pd.read_csv(csv)
        rows["singer"], rows["album"] = [f"singer {k // 6}" for k in range(90)], np.arange(90) // 3 + 2**24
        rows.to_csv(csv, index=False)
        dataset = datasets.load_dataset("features", csv)
        assert dataset.columns == (*(f"feature{k}" for k in range(WIDTH)), "album")
        assert describe_columns(dataset) == [
            f"columns used: filename, label, {WIDTH + 1} features; ignored: length, singer"
        ]
        assert "candidates for groups: --group album, --group singer" in describe_groups(dataset)[0]
        for column in ("singer", "album"):
            grouped = select(dataset, group=column)
            values = rows.set_index("filename")[column].astype(str)
            assert grouped.clips["group"].tolist() == values[grouped.clips["path"]].tolist()
            assert (grouped.clips.groupby("group")["fold"].nunique() == 1).all()
            assert ("album" in grouped.columns) == (column != "album") == (grouped.vectors.shape[1] == WIDTH + 1)
            assert describe_groups(grouped)[0].startswith(f"rows are grouped by column {column}: 90 rows of ")

    @pytest.mark.parametrize(
        ("column", "value", "row", "message"),
        [
            ("feature1", "loud", 4, "row 5: feature1 is 'loud'; a feature must be a finite number"),
            ("feature1", "inf", 0, "row 1: feature1 is 'inf'; a feature must be a finite number"),
            ("feature1", "2.5", None, "feature1 is 2.5 in every row; remove the column"),
            ("label", "", 2, "row 3 has no label"),
            ("filename", "clip000.wav", None, "listed more than once: clip000.wav"),
        ],
    )
    def test_load_feature_table_invalid_cell_raises(
        self, csv: Path, column: str, value: str, row: int | None, message: str
    ) -> None:
        change(csv, column, value, row=row)
        with pytest.raises(UserError, match=f"{re.escape(message)}[^\n]*$"):
            datasets.load_dataset("features", csv)


class TestInputTransform:
    def test_normalise_train_equals_scikit_learn(self, features: Dataset, session: Session) -> None:
        prepared = prepare(run_on(features, session), features, session)
        scaler = StandardScaler().fit(features.vectors[prepared.split.train].astype(np.float64))
        ours = prepared.input_transform(torch.from_numpy(features.vectors)).numpy()
        np.testing.assert_allclose(ours, scaler.transform(features.vectors), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("pca", [0.95, 3.0])
    def test_pca_equals_scikit_learn(self, features: Dataset, session: Session, pca: float) -> None:
        run = run_on(features, session, frontend__pca=pca)
        prepared = prepare(run, features, session)
        train_rows = prepared.split.train
        scaler = StandardScaler().fit(features.vectors[train_rows].astype(np.float64))
        reference = PCA(pca if pca < 1 else int(pca)).fit(scaler.transform(features.vectors[train_rows]))
        expected = scaler.transform(features.vectors) @ reference.components_.T
        ours = prepared.input_transform(torch.from_numpy(features.vectors)).numpy()
        np.testing.assert_allclose(np.abs(ours), np.abs(expected), rtol=1e-3, atol=1e-3)
        assert run.frontend.components == expected.shape[1] < WIDTH
        assert get_input_shape(run) == (expected.shape[1],)

    @pytest.mark.parametrize(
        ("rows", "pca", "message"),
        [
            (5, 5.0, "--pca 5: 5 training rows of 6 features have at most 4 components; give less"),
            (50, 7.0, "--pca 7: 50 training rows of 6 features have at most 6 components; give less"),
            (6, 0.95, "--pca 0.95: 6 training rows are too few to say how 6 features vary; leave it out, or give"),
        ],
    )
    def test_pca_with_too_few_rows_raises(self, features: Dataset, rows: int, pca: float, message: str) -> None:
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            PcaProjection.fitted(features.vectors, np.arange(rows), pca=pca)

    def test_pca_of_images_raises(self, dataset: Dataset, run: Run, session: Session) -> None:
        with pytest.raises(UserError, match="^--pca 0.95: .*; choose --input features"):
            fill_in_run(run.replace(frontend__pca=0.95), dataset, session=session)

    def test_fit_input_transform_ignores_holdout(self, csv: Path, session: Session) -> None:
        whole = datasets.load_dataset("features", csv)
        dataset = select(whole, set_aside=0.2)
        far = dataset.holdout["path"].iloc[0]
        change(csv, "feature0", "1e6", row=int(np.flatnonzero(pd.read_csv(csv)["filename"] == far)[0]))
        changed = select(datasets.load_dataset("features", csv), set_aside=0.2)
        runs = [run_on(made, session, frontend__pca=0.95) for made in (dataset, changed)]
        assert runs[0].id == runs[1].id
        steps = [
            prepare(run, made, session).input_transform for run, made in zip(runs, (dataset, changed), strict=True)
        ]
        for name, tensor in steps[0].state_dict().items():
            assert tensor.equal(steps[1].state_dict()[name])


@pytest.mark.slow
def test_logistic_regression_on_gtzan_features_equals_scikit_learn(real_data: Path, session: Session) -> None:
    path = real_data / "gtzan_features" / "features_30_sec.csv"
    dataset = select(datasets.load_dataset("features", path), folds=10, set_aside=0.1)
    assert len(dataset.columns) == 57
    assert dataset.clips["group"].is_unique  # one row per track
    assert [len(part) for part in dataset.split(1, validation=0.1111)] == [720, 90, 90]
    ours, theirs = [], []
    # Both solve the same convex problem, ours by gradient steps on all rows. C = 1 of scikit-learn is a weight decay of
    # 1 / rows.
    settings = {"training__epochs": 300, "training__batch_size": 1000, "training__lr": 0.02}
    for fold in (1, 2, 3):
        run = run_on(dataset, session, data__fold=fold, training__weight_decay=1 / 810, **settings)
        train(run, dataset, session, label="test")
        ours.append(session.store.finished(run).metrics.accuracy)
        split, labels = dataset.split(fold), dataset.clips["label"].to_numpy()
        scaler = StandardScaler().fit(dataset.vectors[split.train])
        model = LogisticRegression(max_iter=2000).fit(
            scaler.transform(dataset.vectors[split.train]), labels[split.train]
        )
        theirs.append(model.score(scaler.transform(dataset.vectors[split.test]), labels[split.test]))
    assert abs(np.mean(ours) - np.mean(theirs)) <= 0.01, (ours, theirs)
