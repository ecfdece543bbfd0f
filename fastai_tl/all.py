"""Every public name of the kit: `from fastai_tl.all import *`"""

import warnings

with warnings.catch_warnings():  # fastai uses `torch.jit.script`; nobody here can change that
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    import fastai.layers  # noqa: F401
from fastai_tl.core.errors import KitError, KitWarning
from fastai_tl.core.learner_lock import Busy
from fastai_tl.core.settings import Settings, load_settings
from fastai_tl.core.opening import set_opening
from fastai_tl.core.random_state import reseed
from fastai_tl.core.snapshot import Snapshot, preserved
from fastai_tl.freezing.batchnorm import set_bn
from fastai_tl.freezing.fingerprint import FrozenMoved, check_frozen, fingerprint
from fastai_tl.freezing.freeze import freeze_to, hold_stats, set_frozen, train_only, unfreeze
from fastai_tl.freezing.guard import FreezeGuard
from fastai_tl.freezing.layer_groups import GroupSpec, layer_groups, name_groups
from fastai_tl.freezing.layer_table import LayerTable, layer_table
from fastai_tl.freezing.learning_rates import decayed_lrs, layer_decay, lrs_of, set_lrs, split_layers, spread_lrs
from fastai_tl.diagnosis.findings import Diagnosis, DoctorError
from fastai_tl.diagnosis.doctor import diagnose
from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache.feature_cache import FrozenCache
from fastai_tl.cache.split_point import NoCache
from fastai_tl.models.transfer_learner import Backbone, backbones, load_backbone, transfer_learner
from fastai_tl.datasets.corruptions import corrupt
from fastai_tl.datasets.picture_folder import folder_dls, read_folder
from fastai_tl.datasets.image_table import read_table, table_dls
from fastai_tl.datasets.samples import sample_dls, sample_path
from fastai_tl.training.augment import augmented, mild_augment
from fastai_tl.training.checkpoint import CheckpointError, CheckpointMismatch
from fastai_tl.training.epoch_cost import EpochCost, epoch_cost
from fastai_tl.training.history import RunHistory
from fastai_tl.training.lr_finder import LRFinderResult, find_lr, suggest_lr
from fastai_tl.training.plan import Plan
from fastai_tl.training.run_control import Control
from fastai_tl.training.run_faults import NotFinite, OutOfMemory
from fastai_tl.training.probe import probe
from fastai_tl.training.run_plan import run_plan
from fastai_tl.training.stage import PlanError, Stage
from fastai_tl.evaluation.classification import Evaluation, evaluate
from fastai_tl.evaluation.multilabel import MultiLabelEvaluation
from fastai_tl.evaluation.regression import RegressionEvaluation
from fastai_tl.experiments.backbones import compare_backbones
from fastai_tl.experiments.result import Comparison
from fastai_tl.experiments.strategies import Strategy, compare
from fastai_tl.deploy.continue_training import continue_from
from fastai_tl.deploy.export import export
from fastai_tl.deploy.onnx_runtime import load_onnx
from fastai_tl.deploy.predictor import Prediction
from fastai_tl.deploy.torch_predictor import Predictor, load_predictor
from fastai_tl.deploy.web_app import make_app
from fastai_tl.panels.augment import AugmentPanel
from fastai_tl.panels.evaluate import EvaluatePanel
from fastai_tl.panels.freeze import FreezePanel
from fastai_tl.panels.lr_finder import LRFinderPanel
from fastai_tl.panels.plan import PlanPanel
from fastai_tl.panels.train import TrainPanel
from fastai_tl.panels.workbench import Workbench
from fastai_tl.course.grading import todo
from fastai_tl.course.copies import copy_lessons
from fastai_tl.course.lessons import ask, check, list_lessons

__all__ = [
    "AugmentPanel",
    "Backbone",
    "Busy",
    "CheckpointError",
    "CheckpointMismatch",
    "Comparison",
    "Control",
    "Diagnosis",
    "DoctorError",
    "EpochCost",
    "EvaluatePanel",
    "Evaluation",
    "FreezeGuard",
    "FreezePanel",
    "FrozenCache",
    "FrozenMoved",
    "GroupSpec",
    "KitError",
    "KitWarning",
    "LRFinderPanel",
    "LRFinderResult",
    "LayerTable",
    "MultiLabelEvaluation",
    "NoCache",
    "NotFinite",
    "OutOfMemory",
    "Plan",
    "PlanError",
    "PlanPanel",
    "Prediction",
    "Predictor",
    "RegressionEvaluation",
    "RunHistory",
    "Settings",
    "Snapshot",
    "Stage",
    "Strategy",
    "TrainPanel",
    "Workbench",
    "ask",
    "augmented",
    "backbones",
    "check",
    "check_frozen",
    "compare",
    "compare_backbones",
    "continue_from",
    "copy_lessons",
    "corrupt",
    "decayed_lrs",
    "diagnose",
    "epoch_cost",
    "evaluate",
    "export",
    "find_lr",
    "fingerprint",
    "folder_dls",
    "freeze_to",
    "frozen_cache",
    "hold_stats",
    "layer_decay",
    "layer_groups",
    "layer_table",
    "list_lessons",
    "load_backbone",
    "load_onnx",
    "load_predictor",
    "load_settings",
    "lrs_of",
    "make_app",
    "mild_augment",
    "name_groups",
    "preserved",
    "read_folder",
    "read_table",
    "reseed",
    "probe",
    "run_plan",
    "sample_dls",
    "sample_path",
    "set_bn",
    "set_frozen",
    "set_lrs",
    "set_opening",
    "split_layers",
    "spread_lrs",
    "suggest_lr",
    "table_dls",
    "todo",
    "train_only",
    "transfer_learner",
    "unfreeze",
]
