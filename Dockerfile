# The node on ROS 2 Jazzy, with CUDA. CI does not build this file, and it has not been built where it was written.
#
#   docker build -t bridgeta .
#   docker run --rm --gpus all --network host --ipc host bridgeta
#   docker run --rm --gpus all --network host --ipc host -v "$PWD:/vehicle:ro" bridgeta \
#     ros2 launch bridgeta_ros bev.launch.py cameras_file:=/vehicle/cameras.yaml params_file:=/vehicle/bev_node.yaml
#
# Without a GPU leave out `--gpus all`. `--network host --ipc host` let DDS find the vehicle's other nodes and share
# memory with them.
#
# The base is the official ROS image and not one of NVIDIA's: PyTorch's wheels bring the CUDA libraries along, so that
# the host gives only the driver, through NVIDIA's container toolkit.
FROM ros:jazzy-ros-base

SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /ws

# The layers from the slowest changing to the fastest. RViz runs elsewhere.
COPY package.xml src/bridgeta/
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip python3-venv \
 && rosdep update --rosdistro jazzy \
 && rosdep install --from-paths src --ignore-src -y --rosdistro jazzy --dependency-types exec \
      --skip-keys "rviz2 rviz_default_plugins compressed_image_transport" \
 && rm -rf /var/lib/apt/lists/*

# Ubuntu 24.04 does not let pip change its Python (PEP 668). The environment sees the system's packages, such as rclpy
# and colcon, and its own come first: NumPy below 2 and OpenCV below 5, which cv_bridge needs.
# More arguments for pip, for instance another index: --build-arg PIP_ARGS="--extra-index-url URL"
ARG PIP_ARGS=
COPY constraints.txt src/bridgeta/
COPY setup.py setup.cfg README.md src/bridgeta/
COPY resource src/bridgeta/resource
RUN python3 -m venv --system-site-packages /opt/venv \
 && echo "setuptools<80" > /opt/venv/constraints.txt \
 && cat src/bridgeta/constraints.txt >> /opt/venv/constraints.txt \
 && mkdir -p src/bridgeta/launch src/bridgeta/config \
 && /opt/venv/bin/pip install --no-cache-dir ${PIP_ARGS} -c /opt/venv/constraints.txt setuptools ./src/bridgeta \
 && /opt/venv/bin/pip uninstall -y bridgeta_ros

# Run by the environment's Python, colcon makes it the interpreter of bev_node.
COPY . src/bridgeta/
RUN source /opt/ros/jazzy/setup.bash \
 && /opt/venv/bin/python -m colcon build

# `ros2 launch` passes SIGINT on to its nodes, and leaves them behind at docker's default, SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "bridgeta_ros", "bev.launch.py"]
