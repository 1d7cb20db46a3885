"""What a run scores: every expression's pixels measured or kept, then scores, subsets and intervals made of them."""
