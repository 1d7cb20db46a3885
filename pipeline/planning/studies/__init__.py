"""What the runs of a study, many of them alike, will take."""
