"""One file a data set: each lists its files with their labels, and says how its authors score it."""
