"""The methods of distillation by name: BridgeTA, its control, and points of reference; one file each."""
