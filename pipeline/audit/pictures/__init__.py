"""Labels, predictions and candidates to look at, with the reasons of matching."""
