"""What stands between the node and rclpy: the executor, topics that are polled, and messages."""
