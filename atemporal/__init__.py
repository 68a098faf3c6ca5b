"""atemporal: a container at a given time, each on a brand-new EC2 instance of its own."""

__version__ = "0.1.0"
