"""What both stages need of the operating system and of torchrun: signals, locks, processes as one, the machine."""
