"""The live node. Only this folder and `launch/` import rclpy."""
