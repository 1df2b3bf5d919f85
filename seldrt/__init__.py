"""Real-time sound event localization and detection."""

__version__ = "0.1.0"
