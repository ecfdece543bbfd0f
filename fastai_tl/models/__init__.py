"""The catalogue of pretrained networks, their weights, and a Learner with a new head"""
