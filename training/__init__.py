"""Builds the default translation model from human translations in Debian packages.

The recipe is committed; the mined text, which is copyleft, never is. See ``training/README.md``.
"""
