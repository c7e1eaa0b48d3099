"""Time and memory of the library, measured with PyTorch peers."""
