"""The commands of `farm`: one module each, found by being here, with its click command as `command`.

A module imports only click, the flags and how a command ends; what it needs besides (trio, zmq, rich) is imported
inside the command, so that `farm --help` and shell completion are quick.
"""
