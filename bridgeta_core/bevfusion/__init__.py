"""Import the networks that BEVFusion (mit-han-lab/bevfusion) has published, from their PyTorch checkpoints."""
