"""How many processes train together, by torchrun, Slurm or the machine's GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment


@dataclass(frozen=True)
class Processes:
    """Process number `rank` of `world`: `devices` processes on each of `nodes` machines."""

    rank: int = 0
    devices: int = 1
    nodes: int = 1

    @property
    def world(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.nodes

    @classmethod
    def detect(cls) -> Processes:
        """Detect the processes of torchrun or Slurm; without either, one per GPU, or a single one."""
        value = os.environ
        if TorchElasticEnvironment.detect():
            world, local = int(value["WORLD_SIZE"]), int(value.get("LOCAL_WORLD_SIZE", value["WORLD_SIZE"]))
            return cls(int(value["RANK"]), local, world // local)
        if SLURMEnvironment.detect():
            world, nodes = int(value["SLURM_NTASKS"]), int(value.get("SLURM_NNODES", 1))
            return cls(int(value.get("SLURM_PROCID", 0)), world // nodes, nodes)
        # Lightning starts one process per GPU and numbers them by LOCAL_RANK.
        return cls(int(value.get("LOCAL_RANK", 0)), max(1, torch.cuda.device_count()))
