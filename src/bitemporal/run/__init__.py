"""A run: its recipe, its folder, its data, its stages and the loop that trains each of them."""

from bitemporal import _torchvision as _torchvision  # before Lightning, which imports torchvision
