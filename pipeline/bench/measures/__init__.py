"""How a benchmark measures: times in turns, memory, agreement; and the report of what it found."""
