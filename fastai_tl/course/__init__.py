"""Lessons, exercises that check themselves, questions, student copies"""
