"""Own data: JSON lines, an object a line, read into the same `ReferDataset` as REFER's files."""
