"""Every public name of the kit: `from fastai_tl.all import *`"""
from fastai_tl.deployment import Prediction, Predictor, export, load_predictor
from fastai_tl.errors import KitError, KitWarning
from fastai_tl.evaluation import Evaluation, evaluate
from fastai_tl.finder import LRFinderResult, find_lr
from fastai_tl.freeze import FrozenMoved, check_frozen, fingerprint, freeze_to, hold_stats, layer_table, set_bn, unfreeze
from fastai_tl.groups import GroupSpec, layer_groups
from fastai_tl.guard import FreezeGuard
from fastai_tl.plan import Plan, Stage
from fastai_tl.samples import folder_dls, read_folder, sample_dls, sample_path
from fastai_tl.settings import Settings, load_settings
from fastai_tl.snapshot import Snapshot, preserved
from fastai_tl.training import RunHistory, run_plan
from fastai_tl.zoo import backbones, transfer_learner

__all__ = ["Evaluation", "FreezeGuard", "FrozenMoved", "GroupSpec", "KitError", "KitWarning", "LRFinderResult", "Plan", "Prediction",
           "Predictor", "RunHistory", "Settings", "Snapshot", "Stage", "backbones", "check_frozen", "evaluate", "export", "find_lr",
           "fingerprint", "folder_dls", "freeze_to", "hold_stats", "layer_groups", "layer_table", "load_predictor", "load_settings",
           "preserved", "read_folder", "run_plan", "sample_dls", "sample_path", "set_bn", "transfer_learner", "unfreeze"]
