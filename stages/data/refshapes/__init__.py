"""RefShapes: a procedural referring-expression benchmark in the REFER on-disk format."""
