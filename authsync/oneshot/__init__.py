"""What the one-shot commands do, one module a command; each leaves a ``clean`` folder, or changes nothing."""
