"""From camera messages to BEV messages, shared by replay and node. Needs no ROS installation."""
