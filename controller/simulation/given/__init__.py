"""What a simulation is given: arrivals, message times, delays, and lanes as a scenario."""
