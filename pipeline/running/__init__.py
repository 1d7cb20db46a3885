"""The two stages at work: prepared, side by side, on several processes, told to loggers."""
