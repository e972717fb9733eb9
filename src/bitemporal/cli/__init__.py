"""The command line: one thin file per command, next to what they share: `main`, `parser`, `dispatch`, `detector`."""
