"""GitHub's REST and GraphQL for sessions, under the rule that holds for their pushes."""
