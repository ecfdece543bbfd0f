"""Backbones: where their weights come from, what is said when they are not there, how they are normalised."""

import warnings

import pytest
import torch
from fastai.data.transforms import Normalize
from torch import nn
from torchvision import models as tvm

from fastai_tl.core.errors import InputError, KitWarning
from fastai_tl.models.registry import ArchError
from fastai_tl.models.pretrained_weights import WeightsError, weights_file
from fastai_tl.models.transfer_learner import backbones, load_backbone, transfer_learner

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture
def offline(monkeypatch, tmp_path):
    "No weights of torchvision on disk, and no network"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("fastai_tl.models.pretrained_weights._reachable", lambda url, seconds=4: False)
    return tmp_path


@pytest.mark.parametrize("arch", ["resnet18", "vgg16", "mobilenet_v3_small"])
def test_offline_error_names_file_folder_and_what_works(offline, small_dls, arch):
    with pytest.raises(WeightsError) as e:
        transfer_learner(small_dls, arch)
    text, file = str(e.value), weights_file(arch)
    assert isinstance(e.value, OSError) and not file.exists()
    assert file.name in text and str(file.parent) in text and "tf_efficientnet_lite0" in text and str(offline) in text


def test_settings_can_forbid_the_network(monkeypatch, tmp_path, small_dls):
    (tmp_path / "settings.ini").write_text("[fastai_tl]\noffline = yes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("asked the network"))
    with pytest.raises(WeightsError, match="offline = yes"):
        transfer_learner(small_dls, "resnet18")


@pytest.mark.medium
def test_weights_on_disk_are_used_and_checked(offline, small_dls):
    file = weights_file("resnet18")
    file.parent.mkdir(parents=True)
    state = tvm.resnet18().state_dict()
    torch.save(state, file)
    learn = transfer_learner(small_dls, "resnet18")
    torch.testing.assert_close(learn.model[0].layer2[0].conv1.weight, state["layer2.0.conv1.weight"], rtol=0, atol=0)
    assert backbones("resnet", offline=True).name.tolist() == ["resnet_mini", "resnet18"]
    torch.save({k: v for k, v in state.items() if k != "layer1.0.bn1.bias"}, file)
    with pytest.raises(WeightsError, match="layer1.0.bn1.bias"):
        load_backbone("resnet18")


def test_weights_from_a_file(tmp_path):
    from safetensors.torch import save_file

    state = {k: v.clone() for k, v in tvm.mobilenet_v2().state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors")
    b = load_backbone("mobilenet_v2", weights=tmp_path / "mine.safetensors")
    torch.testing.assert_close(b.body.stem[0][0].weight, state["features.0.0.weight"], rtol=0, atol=0)
    with pytest.raises(WeightsError, match="no such file"):
        load_backbone("mobilenet_v2", weights=tmp_path / "gone.pth")


@pytest.mark.medium
@pytest.mark.parametrize(
    "arch, stats",
    [
        ("tf_efficientnet_lite0", ([0.5] * 3, [0.5] * 3)),
        ("resnet18", IMAGENET),
        ("vgg16", IMAGENET),
        ("vgg16_bn", IMAGENET),
        ("mobilenet_v2", IMAGENET),
        ("mobilenet_v3_small", IMAGENET),
    ],
)
def test_normalisation_is_the_backbones_own(small_dls, arch, stats):
    learn = transfer_learner(small_dls, arch, pretrained=False)
    for dl in learn.dls.loaders:
        (norm,) = (t for t in dl.after_batch.fs if isinstance(t, Normalize))
        torch.testing.assert_close(norm.mean.flatten(), torch.tensor(stats[0]))
        torch.testing.assert_close(norm.std.flatten(), torch.tensor(stats[1]))
    assert not [t for t in small_dls.after_batch.fs if isinstance(t, Normalize)], (
        "the caller's DataLoaders are untouched"
    )


@pytest.mark.medium
def test_vggs_other_weights_bring_their_own_normalisation():
    b = load_backbone("vgg16", pretrained=False, weights="IMAGENET1K_FEATURES")
    assert b.mean[0] == pytest.approx(0.48235) and b.std[0] == pytest.approx(1 / 255)


@pytest.mark.medium
def test_a_learner_on_another_learners_data_is_normalised_once(small_dls):
    first = transfer_learner(small_dls, "tf_efficientnet_lite0", pretrained=False)
    with pytest.warns(KitWarning, match="another network"):
        second = transfer_learner(first.dls, "resnet18", pretrained=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KitWarning)
        transfer_learner(second.dls, "mobilenet_v2", pretrained=False)  # the same figures: nothing to say
    assert sum(isinstance(t, Normalize) for t in second.dls.after_batch.fs) == 1


@pytest.mark.medium
def test_heads(small_dls):
    assert isinstance(transfer_learner(small_dls, "resnet18", pretrained=False, head="linear").model[1][-1], nn.Linear)
    mine = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 8))
    assert transfer_learner(small_dls, "resnet18", pretrained=False, head=mine).model[1] is mine
    with pytest.raises(InputError, match="linear"):
        transfer_learner(small_dls, "resnet18", pretrained=False, head="conv")


@pytest.mark.parametrize(
    "bad, near",
    [
        ("resnet81", "resnet"),
        ("mobilenetv2", "mobilenet_v2"),
        ("VGG16", "vgg16"),
        ("timm/nothing", "All names"),
        (3, "name of a backbone"),
    ],
)
def test_unknown_arch_suggests(small_dls, bad, near):
    with pytest.raises(ArchError, match=near):
        transfer_learner(small_dls, bad)


@pytest.mark.medium
def test_plain_tensors_are_not_normalised_in_silence():
    from fastai.data.core import DataLoaders
    from torch.utils.data import TensorDataset

    ds, other = (TensorDataset(torch.randn(16, 3, 48, 48), torch.arange(16) % 2) for _ in range(2))
    dls = DataLoaders.from_dsets(ds, other, bs=8, num_workers=0, device="cpu")
    dls.c = 2
    with pytest.warns(KitWarning, match="normalize=False"):
        learn = transfer_learner(dls, "resnet18", pretrained=False)
    assert not [t for t in learn.dls.after_batch.fs if isinstance(t, Normalize)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", KitWarning)
        transfer_learner(dls, "resnet18", pretrained=False, normalize=False)
