"""What refinement makes of the pseudo-labels of finished runs, judged by the hidden masks."""
