"""A run: its recipe, its folder, its data, its stages, and the loop that trains each of them."""
