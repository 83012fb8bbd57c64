"""The servers of peers that are libraries: each a script of its own, run by the interpreter that has the library.

They import nothing of the bench, which that interpreter may not have.
"""
