"""Stage one: SAM over every image of a data set, once, into the candidate store."""
