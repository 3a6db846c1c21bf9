"""CLDR, read in one place: what there is in the world (`world`) and what it is called (`names`)."""
