"""The widgets: freeze map, learning-rate finder, plan, training, evaluation, workbench"""
