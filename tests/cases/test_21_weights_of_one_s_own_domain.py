"Weights of one's own: strict about the body, indifferent to the classifier that is thrown away, and to wrappers"

import pytest
import torch
import torchvision.models as tvm

from fastai_tl.all import sample_dls, transfer_learner


@pytest.mark.medium
@pytest.mark.parametrize("arch", ["resnet18", "timm/resnet18"])
def test_files_of_training_scripts(arch):
    s = tvm.resnet18(num_classes=10).state_dict()
    dls = sample_dls(size=32, n_per_class=4)
    files = dict(
        ten=s,
        none={k: v for k, v in s.items() if not k.startswith("fc.")},
        parallel={"module." + k: v for k, v in s.items()},
        nested=dict(state_dict=s, epoch=3),
    )
    for name, state in files.items():
        torch.save(state, f"{name}.pth")
        body = transfer_learner(dls, arch, weights=f"{name}.pth").model[0].state_dict()
        assert len(body) == 120
        loaded = {t.flatten()[:9].sum().item() for t in body.values() if t.ndim == 4}
        assert loaded == {t.flatten()[:9].sum().item() for t in s.values() if t.ndim == 4}
