"""Studies: many runs that differ in arm, label budget and seed; planned, carried out and rendered to a page."""
