"""The known data sets: a catalogue of them, and their download."""
