"""Studies of finished runs: what an idea is worth before it is trained."""
