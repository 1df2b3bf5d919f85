"""Everything that happens before and after the daemon: synthesis, extraction, training and evaluation."""
