terraform {
  # 1.10: the state's lock is a file beside it, and no table is needed.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
    random = {
      source  = "hashicorp/random"
      version = ">= 3.6, < 4.0"
    }
  }

  # Bucket and key come by `terraform init -backend-config`: see README.md.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    # Never atemporal:deployment: the reaper ends what has that tag and is no job's.
    tags = {
      "atemporal:network" = var.deployment
    }
  }
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

data "aws_availability_zones" "this" {
  state = "available"

  # Local zones have no RDS and no Amazon MQ.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}
