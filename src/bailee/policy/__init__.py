"""Pure decisions: plans, consents, settings layers, terms. No I/O and no clock of its own."""
