"""Learning-rate finder, plans and stages, checkpoints, and the run of a plan"""
