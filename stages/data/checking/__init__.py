"""What a data set is: its counts beside the published ones, and all that is wrong or worth knowing about it."""
