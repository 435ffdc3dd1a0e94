"""Bags in, bags and reports out. Needs no ROS installation."""
