"""What both stages read: REFER data sets, RefShapes and the labeled split; imports nothing of ours."""
