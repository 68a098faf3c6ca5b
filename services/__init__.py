"""The processes: three daemons that talk over RabbitMQ, and the HTTP front."""
