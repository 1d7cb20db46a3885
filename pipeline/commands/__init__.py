"""The commands that a user types, a file a command group; cli.py assembles them.

Work is imported when a command runs: the command line itself starts without torch.
"""
