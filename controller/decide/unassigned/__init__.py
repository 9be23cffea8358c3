"""What is left for a launch: how many messages nobody has, and since when they wait."""
