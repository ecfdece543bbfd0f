"""Strategies and backbones compared over seeds"""
