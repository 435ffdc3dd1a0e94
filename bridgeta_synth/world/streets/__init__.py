"""Streets: the road network, its lanes and its paint, shared by synthetic towns and real cities."""
