"""Score predictions by BEVFusion's protocol."""
