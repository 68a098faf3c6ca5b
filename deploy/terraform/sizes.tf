# What an installation is made of, by var.size. summary.py reads this file for the costs.
locals {
  sizes = {
    small = {
      server_type        = "t3.small"
      nat_gateways       = 1
      database_class     = "db.t4g.small"
      database_gb        = 20
      database_gb_most   = 200
      backup_days        = 7
      broker_type        = "mq.m7g.medium"
      broker_deployment  = "SINGLE_INSTANCE"
      log_retention_days = 30
    }
    large = {
      server_type        = "m7i.large"
      nat_gateways       = 3
      database_class     = "db.m7g.large"
      database_gb        = 100
      database_gb_most   = 1000
      backup_days        = 30
      broker_type        = "mq.m7g.large"
      broker_deployment  = "CLUSTER_MULTI_AZ"
      log_retention_days = 90
    }
  }

  size    = local.sizes[var.size]
  servers = 3
  zones   = slice(data.aws_availability_zones.this.names, 0, 3)
  name    = "atemporal-${var.deployment}"
}
