"""The back ends that compute the two graphs of the student, one file each, and the choice between them."""
