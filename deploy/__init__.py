"""What an operator deploys beside the daemons; nothing here is part of the package."""
