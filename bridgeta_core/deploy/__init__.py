"""All that a vehicle needs: weights and the runtime."""
