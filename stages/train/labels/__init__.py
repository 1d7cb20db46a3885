"""What pseudo-labels are made of before matching: the teacher, what a group of refs says, weights of pixels (PWA)."""
