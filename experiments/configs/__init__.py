"""Configurations: plain Python, one file an experiment, its docstring telling paper, cost and command."""
