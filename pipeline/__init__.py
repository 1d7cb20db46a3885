"""What a user runs: the command line, recipes, Table 1 and the pictures; may import `stages` and `cache`."""
