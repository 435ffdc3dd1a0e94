"""BridgeTA: camera-only BEV map segmentation, distilled from a LiDAR-camera teacher."""
