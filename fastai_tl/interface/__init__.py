"""Command line, quickstart, notebook magics, and what JupyterLab's side panel calls"""
