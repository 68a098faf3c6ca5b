"""The HTTP front: translates calls of clients and machines to Postgres and RabbitMQ, decides nothing."""
