"""Measurements against other frameworks; every module prints the versions it measured."""
