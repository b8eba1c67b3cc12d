"""Commands: notebooks, studies and claims; annotation of photographs, training of the judges, difficulty, scaling."""
