"""The batched mask generator as a funnel: crops, prompts, encode, decode, select, pack."""
