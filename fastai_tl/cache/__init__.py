"""Outputs of frozen layers, computed once: split point, store, and the callback that trains on them"""
