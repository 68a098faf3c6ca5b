# Copy it to DEPLOYMENT.tfvars beside it: `make infra-up DEPLOYMENT=production` reads production.tfvars.
region    = "eu-central-1"
size      = "small"
domain    = "atemporal.example.com"
zone_id   = "Z0123456789EXAMPLE"
api_cidrs = ["203.0.113.0/24"]
