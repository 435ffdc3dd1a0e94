"""BridgeTA on ROS 2 messages and bags; only node.py needs a ROS installation."""
