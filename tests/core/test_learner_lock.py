"""While one thread trains a Learner, everything else that would touch it is refused; fastai's own methods, too."""

import copy
import pickle
import threading

import pytest
import torch
from helpers import QUIET, noisy_learner

from fastai_tl.all import (
    Plan,
    Stage,
    diagnose,
    evaluate,
    export,
    find_lr,
    fingerprint,
    freeze_to,
    hold_stats,
    layer_table,
    run_plan,
    set_bn,
    set_frozen,
    set_lrs,
    split_layers,
    unfreeze,
)
from fastai_tl.training.epoch_cost import epoch_cost
from fastai_tl.core.learner_lock import Busy, Owner, acquire, owned, owner_of, release

CALLS = {
    "validate": lambda o: o.validate(),
    "fit": lambda o: o.fit(1),
    "fit_one_cycle": lambda o: o.fit_one_cycle(1),
    "get_preds": lambda o: o.get_preds(),
    "freeze": lambda o: o.freeze(),
    "learn.unfreeze": lambda o: o.unfreeze(),
    "create_opt": lambda o: o.create_opt(),
    "add_cb": lambda o: o.add_cb(None),
    "save": lambda o: o.save("x"),
    "load": lambda o: o.load("x"),
    "export file": lambda o: o.export("x"),
    "lr_find": lambda o: o.lr_find(),
    "freeze_to": lambda o: freeze_to(o, "head"),
    "unfreeze": unfreeze,
    "set_frozen": lambda o: set_frozen(o, "0"),
    "set_bn": lambda o: set_bn(o, "train"),
    "set_bn of the model": lambda o: set_bn(o.model, "train"),
    "freeze_to of the model": lambda o: freeze_to(o.model, 1),
    "set_lrs": lambda o: set_lrs(o, 1e-3),
    "hold_stats": hold_stats,
    "split_layers": split_layers,
    "find_lr": lambda o: find_lr(o, on_progress=QUIET),
    "evaluate": lambda o: evaluate(o, on_progress=QUIET),
    "diagnose": diagnose,
    "run_plan": lambda o: run_plan(o, Plan((Stage("a", epochs=1, lr=0.1),)), on_progress=QUIET),
    "epoch_cost": lambda o: epoch_cost(o),
}


@pytest.fixture
def held():
    "A Learner that another thread holds"
    learn, there, leave = noisy_learner(), threading.Event(), threading.Event()

    def hold():
        with owned(learn, "TrainPanel", lambda: "epoch 2 of 5", "Press Stop"):
            there.set()
            leave.wait(60)

    t = threading.Thread(target=hold)
    t.start()
    assert there.wait(60)
    yield learn
    leave.set()
    t.join()


@pytest.mark.parametrize("call", CALLS)
def test_refused_with_a_sentence_and_nothing_changed(held, call):
    before, rng, opt = fingerprint(held), torch.random.get_rng_state(), held.opt
    with pytest.raises(Busy, match=r"TrainPanel is using this Learner, epoch 2 of 5; .* would disturb it\. Press Stop"):
        CALLS[call](held)
    assert fingerprint(held) == before and torch.equal(torch.random.get_rng_state(), rng) and held.opt is opt


@pytest.mark.medium
def test_export_is_refused(small_dls, tmp_path):
    from fastai_tl.models.transfer_learner import transfer_learner

    learn = transfer_learner(small_dls, "resnet_mini")
    owner = Owner("someone else")
    acquire(learn, owner)
    owner.thread = -1
    with pytest.raises(Busy):
        export(learn, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    release(learn)
    export(learn, tmp_path / "out")


def test_looking_is_free(held):
    assert layer_table(held).shape[0] == 5 and len(held.model) == 3 and held.recorder is not None


def test_after_it_everything_is_as_before(held):
    names = set(vars(held))
    release(held)
    assert owner_of(held) is None and not {n for n in names if n in vars(held)} & {"fit", "validate", "export"}
    held.fit(1)


def test_copies_of_a_held_learner_are_free(held):
    other = pickle.loads(pickle.dumps(copy.deepcopy(held)))
    other.dls = held.dls
    assert owner_of(other) is None
    assert len(other.validate()) == 2


def test_an_error_in_the_training_lets_go():
    learn = noisy_learner()

    def fail(*a):
        raise ZeroDivisionError("by a reporter")

    with pytest.raises(ZeroDivisionError):
        run_plan(learn, Plan((Stage("a", epochs=1, lr=0.1),)), on_progress=fail)
    assert owner_of(learn) is None
    learn.validate()


def test_a_second_owner_is_refused():
    learn = noisy_learner()
    acquire(learn, Owner("A"))
    with pytest.raises(Busy, match="A is using"):
        acquire(learn, Owner("B"))
    release(learn)
    acquire(learn, Owner("B"))
    release(learn)
