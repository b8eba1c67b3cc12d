"""Commands beside the course: annotation of photographs, training of the judges, difficulty, scaling."""
