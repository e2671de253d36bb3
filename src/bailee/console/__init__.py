"""The console: web pages for account holders, admins and operators. Flows bring theirs with them."""
