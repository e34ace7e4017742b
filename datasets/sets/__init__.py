"""Sets that others published, and sound that is made here."""
