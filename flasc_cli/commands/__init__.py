"""The commands, one file per noun; each imports what it needs only when it runs."""
