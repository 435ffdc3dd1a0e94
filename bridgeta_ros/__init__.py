"""BridgeTA on ROS 2 messages and bags; only the folder node needs a ROS installation."""
