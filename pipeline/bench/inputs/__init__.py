"""What benchmarks work on: masks, SAMs and samples drawn from seeds."""
