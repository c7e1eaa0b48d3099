"""Where mathematics meets a network: one file a method."""
