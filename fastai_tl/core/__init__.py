"""Errors, settings, the lock of a Learner, snapshots, progress, images: what every other package stands on"""
