"""Related methods of distillation, each from its own paper and task, brought to maps in the bird's-eye view."""
