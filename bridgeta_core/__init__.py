"""BridgeTA: camera-only BEV map segmentation, distilled from a LiDAR-camera teacher."""

import os

# Waiting OpenMP threads spin by default and take the cores from whoever they wait for. Beside the decoding threads or
# another busy process a pass of the `tiny` network took 1,600 ms on two cores; it takes 100 ms when they sleep. OpenMP
# reads this when torch is loaded, so it stands here, before any of our modules can load it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# OpenBLAS's threads spin too, after every product that numpy shares out, however small; ours are 4x4 matrices and lists
# of points. Rendering a keyframe on one core kept another half busy for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
