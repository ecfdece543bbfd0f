"""Layer groups, batch-norm policy, freezing and unfreezing, the layer table, learning rates by group, the guard"""
