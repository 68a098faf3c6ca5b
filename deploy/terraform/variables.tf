variable "deployment" {
  description = "This installation's name (ATEMPORAL_DEPLOYMENT): in the names and tags of everything."
  type        = string

  validation {
    # Names of load balancers have room for no more.
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.deployment))
    error_message = "Write 2 to 16 small letters, digits and hyphens; a letter first, no hyphen last."
  }
}

variable "region" {
  description = "The AWS region of everything, the jobs' instances too."
  type        = string
}

variable "size" {
  description = "small or large: what the servers, the database and the broker are; see sizes.tf."
  type        = string
  default     = "small"

  validation {
    condition     = contains(["small", "large"], var.size)
    error_message = "Write small or large."
  }
}

variable "image" {
  description = "The project's image with its tag, as the servers pull it; `make registry` prints it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9./_-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "Write an image with its tag or digest, like 111122223333.dkr.ecr.eu-central-1.amazonaws.com/atemporal:1.0."
  }
}

variable "domain" {
  description = "The API's name, like atemporal.example.com; machines call machines.DOMAIN."
  type        = string
}

variable "zone_id" {
  description = "The public Route 53 zone in which DOMAIN is."
  type        = string
}

variable "api_cidrs" {
  description = "The networks that may reach the API; machines come by another load balancer."
  type        = set(string)
}

variable "metrics_cidrs" {
  description = "The networks, inside the VPC or peered, from which Prometheus reads the daemons' metrics."
  type        = set(string)
  default     = []
}

variable "vpc_cidr" {
  description = "The VPC's network, a /16: a /20 in each zone for jobs."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(regex("/16$", var.vpc_cidr))
    error_message = "Write a /16, like 10.40.0.0/16."
  }
}

variable "job_role" {
  description = "The name of a role and of its instance profile for jobs' instances; empty: none."
  type        = string
  default     = ""
}

variable "server_image_id" {
  description = "The servers' Flatcar AMI; empty: the newest stable one, which each plan looks up."
  type        = string
  default     = ""
}

variable "settings" {
  description = "More ATEMPORAL_* settings of all daemons; none that is secret."
  type        = map(string)
  default     = {}
}

variable "files" {
  description = "What you have put into Secrets Manager, as atemporal/DEPLOYMENT/NAME: see README."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.files, ["registries", "prices", "certificates"])) == 0
    error_message = "Write registries, prices, certificates, or several of them."
  }
}

variable "protected" {
  description = "Whether the database and the load balancers refuse to be deleted."
  type        = bool
  default     = true
}
