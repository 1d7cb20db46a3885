"""Stage two: the teacher-student LAVT, its pseudo-labels refined against the cached candidates."""
