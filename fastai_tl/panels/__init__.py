"""Widgets for the notebook: each shows a part of a Learner, changes it, and prints the Python that does the same"""
