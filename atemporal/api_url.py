"""Where the API is when nobody says where."""

from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:8080"
