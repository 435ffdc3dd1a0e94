"""How many processes train together, as torchrun, Slurm or the machine's GPUs say."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment


@dataclass(frozen=True)
class Processes:
    """Process number `rank` of `world`, which are `devices` on each of `nodes` machines."""

    rank: int = 0
    devices: int = 1
    nodes: int = 1

    @property
    def world(self) -> int:
        """How many there are in all."""
        return self.devices * self.nodes

    @classmethod
    def found(cls) -> Processes:
        """What the environment says: torchrun's or Slurm's processes, else one per GPU, else a single one."""
        value = os.environ
        if TorchElasticEnvironment.detect():
            world, local = int(value["WORLD_SIZE"]), int(value.get("LOCAL_WORLD_SIZE", value["WORLD_SIZE"]))
            return cls(int(value["RANK"]), local, world // local)
        if SLURMEnvironment.detect():
            world, nodes = int(value["SLURM_NTASKS"]), int(value.get("SLURM_NNODES", 1))
            return cls(int(value.get("SLURM_PROCID", 0)), world // nodes, nodes)
        # Lightning starts one process per GPU and numbers them so.
        return cls(int(value.get("LOCAL_RANK", 0)), max(1, torch.cuda.device_count()))
