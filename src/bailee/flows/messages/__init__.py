"""Model traffic: the gateway between an agent and the model, and what is recorded of it."""
