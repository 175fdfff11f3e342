"""Parsers of the forms in which datasets were first published: original files in, arrays of the npz form out."""
