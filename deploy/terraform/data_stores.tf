# PostgreSQL and RabbitMQ, and what the daemons need to reach them.

# Letters and digits alone: they stand in URLs, and Amazon MQ takes no comma, colon or equals sign.
resource "random_password" "database" {
  length  = 32
  special = false
}

resource "random_password" "broker" {
  length  = 32
  special = false
}

resource "random_password" "callback_key" {
  length  = 48
  special = false
}

resource "aws_db_subnet_group" "this" {
  name       = local.name
  subnet_ids = aws_subnet.private[*].id
}

resource "aws_db_instance" "this" {
  identifier = local.name

  engine                      = "postgres"
  engine_version              = "17"
  allow_major_version_upgrade = false
  auto_minor_version_upgrade  = true
  instance_class              = local.size.database_class

  storage_type          = "gp3"
  storage_encrypted     = true
  allocated_storage     = local.size.database_gb
  max_allocated_storage = local.size.database_gb_most

  multi_az               = true
  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this["database"].id]
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  db_name  = "atemporal"
  username = "atemporal"
  # Not manage_master_user_password: RDS changes such a password every seven days, and the daemons
  # read theirs when they start.
  password = random_password.database.result

  backup_retention_period         = local.size.backup_days
  copy_tags_to_snapshot           = true
  deletion_protection             = var.protected
  skip_final_snapshot             = false
  final_snapshot_identifier       = "${local.name}-final"
  enabled_cloudwatch_logs_exports = ["postgresql"]
  apply_immediately               = true
}

resource "aws_mq_broker" "this" {
  broker_name = local.name

  engine_type = "RabbitMQ"
  # Quorum queues with a delivery limit; mq.m7g alone has it. Patches are AWS' to choose, and from
  # 3.13 on the next argument has to be true.
  engine_version             = "4.2"
  auto_minor_version_upgrade = true
  host_instance_type         = local.size.broker_type
  deployment_mode            = local.size.broker_deployment

  publicly_accessible = false
  # A single instance takes one subnet, and refuses more.
  subnet_ids = slice(
    aws_subnet.private[*].id, 0, local.size.broker_deployment == "SINGLE_INSTANCE" ? 1 : 3
  )
  security_groups = [aws_security_group.this["broker"].id]

  user {
    username = "atemporal"
    password = random_password.broker.result
  }

  logs {
    general = true
  }

  maintenance_window_start_time {
    day_of_week = "SUNDAY"
    time_of_day = "03:00"
    time_zone   = "UTC"
  }
}

# Two secrets, each with a line for each setting, as docker reads them (--env-file).
locals {
  secrets = {
    stores        = "Where the database and the broker are, with their passwords; Terraform keeps it"
    callback-keys = "The keys of the machines' tokens; Terraform writes the first, then it is yours"
  }
}

resource "aws_secretsmanager_secret" "this" {
  for_each = local.secrets

  name        = "atemporal/${var.deployment}/${each.key}"
  description = each.value
  # As long as AWS keeps a deleted one, no other may have its name.
  recovery_window_in_days = var.protected ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "stores" {
  secret_id = aws_secretsmanager_secret.this["stores"].id
  secret_string = join("", [
    "ATEMPORAL_DATABASE_URL=postgresql://atemporal:${random_password.database.result}@",
    "${aws_db_instance.this.endpoint}/atemporal?sslmode=verify-full&sslrootcert=/etc/atemporal/rds.pem\n",
    # amqps://HOST:5671, with our name and password, and the virtual host "/".
    "ATEMPORAL_BROKER_URL=",
    replace(
      aws_mq_broker.this.instances[0].endpoints[0],
      "amqps://", "amqps://atemporal:${random_password.broker.result}@"
    ),
    "//\n",
  ])
}

resource "aws_secretsmanager_secret_version" "callback_keys" {
  secret_id     = aws_secretsmanager_secret.this["callback-keys"].id
  secret_string = "ATEMPORAL_CALLBACK_KEYS=k1:${random_password.callback_key.result}\n"

  # Rotated by hand: see README.md.
  lifecycle {
    ignore_changes = [secret_string]
  }
}
