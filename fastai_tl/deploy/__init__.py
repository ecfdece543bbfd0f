"""Export without pickle, predictors for torch and ONNX Runtime, and a web page for a model"""
