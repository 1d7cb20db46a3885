"""Copies of data sets in other formats than REFER's, written into its layout; a module a source."""
