"""Fine-tuning as a study: tasks, backbones, methods that rival circuits."""
