output "api_url" {
  description = "Where clients find the API (ATEMPORAL_API_URL)."
  value       = "https://${var.domain}"
}

output "load_balancers" {
  description = "The load balancers' own names: the API's, and the machines'."
  value       = { for name, balancer in aws_lb.this : name => balancer.dns_name }
}

output "database" {
  description = "The database's host and port."
  value       = aws_db_instance.this.endpoint
}

output "broker" {
  description = "The broker's address, without a name and a password."
  value       = aws_mq_broker.this.instances[0].endpoints[0]
}

output "servers" {
  description = "The name of the servers' auto scaling group."
  value       = aws_autoscaling_group.servers.name
}

output "target_groups" {
  description = "The servers behind each load balancer, for `make deploy`."
  value       = { for name, group in aws_lb_target_group.this : name => group.arn }
}

output "daemons" {
  description = "The daemons, in no order."
  value       = keys(local.daemons)
}

output "log_group" {
  description = "The CloudWatch log group of all daemons, a stream each."
  value       = aws_cloudwatch_log_group.this.name
}

output "secrets" {
  description = "The names of the daemons' secrets in Secrets Manager."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.name }
}

output "jobs" {
  description = "Where jobs' instances are launched: for jobs that name a subnet or a group."
  value = {
    subnets        = aws_subnet.jobs[*].id
    security_group = aws_security_group.this["jobs"].id
  }
}
