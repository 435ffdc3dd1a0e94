"""Export the student to files that run without this package: its graphs, and the plan of the lift in NumPy alone."""
