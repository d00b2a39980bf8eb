"""A real pretrained model without a hub: SmolLM2-135M from a Python wheel, with adapters that were tuned here."""
