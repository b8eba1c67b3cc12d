"""Generators: one paper, one file; networks under the paper's names and a method class that `training.fit` drives."""
