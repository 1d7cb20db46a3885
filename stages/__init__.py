"""The work, in two stages that meet only in the candidate store."""
