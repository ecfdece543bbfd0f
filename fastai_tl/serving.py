"""Where exported model cards import `load_onnx` from"""

from .deploy.onnx_runtime import load_onnx  # noqa: F401
