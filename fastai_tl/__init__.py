"""Transfer learning on fastai that you can trust: six steps, frozen layers that stay frozen, offline"""

__version__ = "0.1.0"

import importlib
import warnings

# In reading order: each package imports those before it and none after it.
PACKAGES = (
    "core",
    "freezing",
    "diagnosis",
    "acceleration",
    "cache",
    "models",
    "datasets",
    "training",
    "evaluation",
    "experiments",
    "deploy",
    "panels",
    "course",
    "interface",
)

# Where each public name is defined. `fastai_tl.all` imports them all; a test keeps the two equal.
_HOMES = {
    "core.errors": "KitError KitWarning",
    "core.learner_lock": "Busy",
    "core.settings": "Settings load_settings",
    "core.opening": "set_opening",
    "core.random_state": "reseed",
    "core.snapshot": "Snapshot preserved",
    "freezing.batchnorm": "set_bn",
    "freezing.fingerprint": "FrozenMoved check_frozen fingerprint",
    "freezing.freeze": "freeze_to hold_stats set_frozen train_only unfreeze",
    "freezing.guard": "FreezeGuard",
    "freezing.layer_groups": "GroupSpec layer_groups name_groups",
    "freezing.layer_table": "LayerTable layer_table",
    "freezing.learning_rates": "decayed_lrs layer_decay lrs_of set_lrs split_layers spread_lrs",
    "diagnosis.findings": "Diagnosis DoctorError",
    "diagnosis.doctor": "diagnose",
    "cache.callback": "frozen_cache",
    "cache.feature_cache": "FrozenCache",
    "cache.split_point": "NoCache",
    "models.transfer_learner": "Backbone backbones load_backbone transfer_learner",
    "datasets.corruptions": "corrupt",
    "datasets.picture_folder": "folder_dls read_folder",
    "datasets.image_table": "read_table table_dls",
    "datasets.samples": "sample_dls sample_path",
    "training.augment": "augmented mild_augment",
    "training.checkpoint": "CheckpointError CheckpointMismatch",
    "training.epoch_cost": "EpochCost epoch_cost",
    "training.history": "RunHistory",
    "training.lr_finder": "LRFinderResult find_lr suggest_lr",
    "training.plan": "Plan",
    "training.run_control": "Control",
    "training.run_faults": "NotFinite OutOfMemory",
    "training.probe": "probe",
    "training.run_plan": "run_plan",
    "training.stage": "PlanError Stage",
    "evaluation.classification": "Evaluation evaluate",
    "evaluation.multilabel": "MultiLabelEvaluation",
    "evaluation.regression": "RegressionEvaluation",
    "experiments.backbones": "compare_backbones",
    "experiments.result": "Comparison",
    "experiments.strategies": "Strategy compare",
    "deploy.continue_training": "continue_from",
    "deploy.export": "export",
    "deploy.onnx_runtime": "load_onnx",
    "deploy.predictor": "Prediction",
    "deploy.torch_predictor": "Predictor load_predictor",
    "deploy.web_app": "make_app",
    "panels.augment": "AugmentPanel",
    "panels.evaluate": "EvaluatePanel",
    "panels.freeze": "FreezePanel",
    "panels.lr_finder": "LRFinderPanel",
    "panels.plan": "PlanPanel",
    "panels.train": "TrainPanel",
    "panels.workbench": "Workbench",
    "course.grading": "todo",
    "course.copies": "copy_lessons",
    "course.lessons": "ask check list_lessons",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name):
    """A public name, or a package, imported when first used

    `import fastai_tl` itself loads neither torch nor fastai, and a name loads no more than the module that defines it.
    """
    if name in _HOME:
        with warnings.catch_warnings():  # fastai uses `torch.jit.script`; nobody here can change that
            warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
            return getattr(importlib.import_module(f"fastai_tl.{_HOME[name]}"), name)
    try:
        return importlib.import_module(f"fastai_tl.{name}")
    except ModuleNotFoundError as e:
        if e.name != f"fastai_tl.{name}":
            raise
    raise AttributeError(f"module 'fastai_tl' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})


def load_ipython_extension(ip):
    "`%load_ext fastai_tl`: the magic `%tl`, and Learners that show what is frozen"
    importlib.import_module("fastai_tl.interface.magics").load_ipython_extension(ip)


def unload_ipython_extension(ip):
    "`%unload_ext fastai_tl`"
    importlib.import_module("fastai_tl.interface.magics").unload_ipython_extension(ip)
