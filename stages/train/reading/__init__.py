"""What a step reads: samples, which of them in which order, and the processes that read them ahead."""
