"""The exercises of each lesson, and how they are judged"""
