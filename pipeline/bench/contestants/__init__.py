"""What takes turns in a benchmark: ours as a run uses it, and plain ways of doing the same."""
