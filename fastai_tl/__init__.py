"""Transfer learning on fastai that you can trust: six steps, frozen layers that stay frozen, offline"""

__version__ = "0.1.0"

import importlib


def __getattr__(name):
    "Public names and modules, imported when first used: `import fastai_tl` itself loads neither torch nor fastai"
    if name.startswith("_"): raise AttributeError(f"module 'fastai_tl' has no attribute {name!r}")
    try: return importlib.import_module(f"fastai_tl.{name}")
    except ModuleNotFoundError as e:
        if e.name != f"fastai_tl.{name}": raise
    try: return getattr(importlib.import_module("fastai_tl.all"), name)
    except AttributeError: raise AttributeError(f"module 'fastai_tl' has no attribute {name!r}") from None


def load_ipython_extension(ip):
    "`%load_ext fastai_tl`: the magic `%tl`, and Learners that show what is frozen"
    importlib.import_module("fastai_tl.interface.magics").load_ipython_extension(ip)


def unload_ipython_extension(ip):
    "`%unload_ext fastai_tl`"
    importlib.import_module("fastai_tl.interface.magics").unload_ipython_extension(ip)
