"""One folder per arrow of the data-flow diagram; delete the folder and the flow is gone."""
