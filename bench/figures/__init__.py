"""Pure: what results are made of, what they show, and what follows from them."""
