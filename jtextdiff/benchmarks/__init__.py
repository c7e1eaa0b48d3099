"""Time and memory, measured beside PyTorch peers."""
