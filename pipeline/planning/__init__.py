"""What a training run will take, computed beforehand without data, weights or a GPU."""
