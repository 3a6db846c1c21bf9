"""What runs a study: the runner, its models and the parts that are kept."""
