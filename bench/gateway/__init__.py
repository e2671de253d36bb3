"""What forwarding model traffic costs: Bailee beside no gateway, nginx, LiteLLM and two bare probes."""
