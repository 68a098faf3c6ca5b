"""What the broker says of itself, for who writes a report."""

from __future__ import annotations

from atemporal.broker.link import Link


def version(url: str) -> str:
    """The product and the release of the broker, like `RabbitMQ 3.12.1`; nothing is declared.

    Raises:
        Invalid: the URL can not be a broker's.
        Unavailable: it does not answer, or refuses us.
    """
    link = Link(url, name="report", declare=False)
    try:
        with link._guarded() as connection:
            properties = getattr(connection.connection, "server_properties", {})
            return f"{properties.get('product', 'unknown')} {properties.get('version', 'unknown')}"
    finally:
        link.close()
