"""The doctor: what is here, what works, and what is missing for the next step."""
