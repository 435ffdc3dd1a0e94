"""The networks and the parts that they share."""
