"""What a neighbour could learn: attacks on the user's own model and data, and how far they get."""
