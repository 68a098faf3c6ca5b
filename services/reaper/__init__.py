"""The reaper: ends instances whose attempt has ended, and attempts whose instance has."""
