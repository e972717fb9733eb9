"""How pixels come in: files decoded, values scaled, masks read, images of any kind brought to one form."""
