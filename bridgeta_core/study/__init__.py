"""Studies: many runs that differ in the arm, the label budget and the seed; planned, run, and rendered to a table."""
