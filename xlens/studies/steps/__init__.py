"""How the parts of each study are made."""
