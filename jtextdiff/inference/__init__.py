"""A trained model at work: sampling, infilling, editing and likelihood of texts."""
