"""What runs a training step: precision, processes, states on disk. It knows nothing of the method."""
