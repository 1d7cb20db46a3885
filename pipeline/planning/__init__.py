"""What a training run, or all runs of a study, will take, computed beforehand without data, weights or a GPU."""
